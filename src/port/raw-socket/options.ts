/** Options of a raw socket: what each may be, and what one says about another. */
import type { RawSocketOptions } from '../options.ts'
import { RING_KB_MAX, RING_KB_MIN } from './geometry.ts'
import { checkIfname, fail, GRO, ID, MTU } from '../option-rules.ts'
import type { At, OptionRules } from '../option-rules.ts'

export const rawSocketRules: OptionRules = {
  id: ID,
  ifname: { kind: 'string' },
  netns: { kind: 'string' },
  fd: { kind: 'string' },
  queues: { kind: 'integer', range: [1, 64] },
  promisc: { kind: 'boolean' },
  vnet_hdr: { kind: 'boolean' },
  bypass: { kind: 'boolean' },
  'ring-kb': { kind: 'integer', range: [RING_KB_MIN, RING_KB_MAX] },
  mtu: MTU,
  gro: GRO,
}

export function checkRawSocket(options: RawSocketOptions, at: At): void {
  const { ifname, fd } = options
  if (fd !== undefined) {
    const others = (['ifname', 'netns', 'queues'] as const).filter(
      (key) => options[key] !== undefined,
    )
    if (others.length > 0) {
      fail(at('fd'), `${others.join('=, ')}= cannot be given with fd=, which says all of it`)
    }
    return
  }
  if (ifname === undefined || ifname === '') {
    return fail(at('ifname'), `Parameter 'ifname' is missing`, 'the interface, as ifname=eth1')
  }
  if (ifname.includes('%')) fail(at('ifname'), `ifname "${ifname}" is no interface name`)
  checkIfname(ifname, at)
}
