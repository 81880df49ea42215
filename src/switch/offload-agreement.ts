/**
 * Which offloads the kernel may leave to us on a TAP (TUNSETOFFLOAD). On the switch that is all of
 * them: what an egress cannot take is done in software for that egress alone (offload/), so that no
 * port slows another. On a link it is what the other end takes, as the kernel segments better.
 */
import { OFFLOADS_ALL } from '../wire/vnet-hdr.ts'
import type { OpenPort } from './switch-port.ts'

export interface OffloadParty {
  readonly open: OpenPort
  readonly peer: OffloadParty | undefined
  readonly failure: string | undefined
}

/** Tells each port what its frames may leave undone, where that has changed. */
export function agreeOffloads(all: readonly OffloadParty[]): void {
  for (const { open, peer, failure } of all) {
    // Nobody there: the frames go nowhere, and whoever comes will most likely take it all.
    const isAlone = peer === undefined || peer.open.isConnected === false
    const wish = isAlone ? OFFLOADS_ALL : peer.open.txOffloads
    if (failure === undefined) open.setOffloads?.(wish)
  }
}
