/** Which offloads the frames of each port may need: what all those can take that receive them. */
import { OFFLOADS_ALL } from '../wire/vnet-hdr.ts'
import type { OpenPort } from './switch-port.ts'

export interface OffloadParty {
  readonly open: OpenPort
  readonly peer: OffloadParty | undefined
  readonly failure: string | undefined
}

/**
 * Asks every port to hand over only what all those that may receive its frames can take: its peer
 * on a link, the other ports of the switch elsewhere.
 */
export function agreeOffloads(all: readonly OffloadParty[]): void {
  for (const party of all) {
    const { open, peer, failure } = party
    const receivers =
      peer === undefined
        ? all.filter((other) => other !== party && other.peer === undefined)
        : [peer]
    // What a postponed TAP takes is not known: a guest on a link to it is offered everything (F4).
    const isOpen = peer === undefined || peer.open.description.kind !== 'postponed'
    const lasting = isOpen ? commonOffloads(receivers) : OFFLOADS_ALL
    const wish = commonOffloads(receivers.filter((other) => other.open.isConnected !== false))
    // A port whose guest comes and goes keeps both for the next one.
    const isNews = open.rxOffloads !== wish || open.isConnected !== undefined
    if (failure === undefined && isNews) open.setOffloads(wish, lasting)
  }
}

/** What every one of them can take. */
function commonOffloads(receivers: readonly OffloadParty[]): number {
  return receivers.reduce((bits, { open }) => bits & open.txOffloads, OFFLOADS_ALL)
}
