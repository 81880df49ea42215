/** Options of a raw socket: what each may be, and what one says about another. */
import type { RawSocketOptions } from '../options.ts'
import { RING_KB_DEFAULT, RING_KB_MAX, RING_KB_MIN, RINGS_KB_MAX } from './geometry.ts'
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
  const { ifname, fd, queues = 1, 'ring-kb': ringKb = RING_KB_DEFAULT } = options
  if (queues * ringKb > RINGS_KB_MAX) {
    fail(
      at('ring-kb'),
      `${queues} rings of ${ringKb} KiB are more than the ${RINGS_KB_MAX} KiB that a port may have`,
      'give a smaller ring-kb=, or fewer queues',
    )
  }
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
