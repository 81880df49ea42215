/**
 * Which offloads the kernel may leave to us on a TAP (TUNSETOFFLOAD). On the switch that is all of
 * them: what an egress cannot take is done in software for that egress alone (offload/), so that no
 * port slows another. On a link it is what the other end takes, as the kernel segments better.
 */
import { OFFLOADS_ALL, OFFLOADS_PLAIN } from '../wire/vnet-hdr.ts'
import type { OpenPort } from '../port/open-port.ts'

export interface OffloadParty {
  readonly open: OpenPort
  readonly peer: OffloadParty | undefined
  readonly failure: string | undefined
}

/**
 * What a TAP with this port at the other end of its link is asked for. While nobody is there, the
 * frames go nowhere, and whoever comes will most likely take it all; but for tunnels, which few
 * guests take: with each change the kernel would throw away the tunnelled frames that wait.
 */
function wishOf(peer: OpenPort | undefined): number {
  if (peer === undefined) return OFFLOADS_ALL
  return peer.isConnected === false ? OFFLOADS_PLAIN : peer.txOffloads
}

/** Tells each port what its frames may leave undone, where that has changed. */
export function agreeOffloads(all: readonly OffloadParty[]): void {
  for (const { open, peer, failure } of all) {
    if (failure === undefined) open.setOffloads?.(wishOf(peer?.open))
  }
}
