/** Option strings and config texts: what is formatted parses back, and garbage is told, not thrown on. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseConfig } from '../../src/config/load.ts'
import { formatNetdev, parseNetdev } from '../../src/config/netdev.ts'
import { OPTION_TABLE } from '../../src/port/kinds.control.ts'
import { ConfigError } from '../../src/errors.ts'
import type { PortOptions } from '../../src/port/options.ts'

const id = fc.stringMatching(/^[A-Za-z][-A-Za-z0-9._]{0,62}$/)
const text = fc.string({ minLength: 1, unit: 'grapheme' }).filter((value) => !value.includes('\0'))
const mtu = fc.integer({ min: 68, max: 65535 })

const tap = fc.record(
  {
    type: fc.constant('tap' as const),
    id,
    ifname: fc.stringMatching(/^[a-z0-9]{1,15}$/),
    script: text,
    downscript: text,
    sndbuf: fc.nat(),
    vnet_hdr: fc.boolean(),
    vhost: fc.constant(false),
    queues: fc.integer({ min: 1, max: 256 }),
    persist: fc.boolean(),
    netns: text,
    mtu,
    owner: text,
    group: text,
    up: fc.boolean(),
  },
  { requiredKeys: ['type', 'id'] },
)

const replay = fc.record(
  {
    type: fc.constant('pcap' as const),
    id,
    replay: text,
    mtu,
    pace: fc.constantFrom('recorded' as const, 'full' as const),
    loop: fc.nat(),
  },
  { requiredKeys: ['type', 'id', 'replay'] },
)
const record = fc.record({ type: fc.constant('pcap' as const), id, record: text })
const given = fc.record({ type: fc.constant('tap' as const), id, fd: text })

test('parseNetdev undoes formatNetdev', () => {
  const options: fc.Arbitrary<PortOptions> = fc.oneof(tap, replay, record, given)
  fc.assert(
    fc.property(options, (wanted) => {
      expect(parseNetdev(formatNetdev(wanted))).toEqual(wanted)
    }),
    { numRuns: 2000 },
  )
})

/** Only the errors that a user can read. */
function isTold(action: () => unknown): void {
  try {
    action()
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
  }
}

test('whatever an option string says, it is options or a ConfigError', () => {
  const keys = Object.values(OPTION_TABLE).flatMap((rules) => Object.keys(rules))
  const field = fc.oneof(
    fc.string(),
    fc
      .tuple(fc.constantFrom(...keys, 'type', '__proto__', 'toString'), fc.string())
      .map((pair) => pair.join('=')),
  )
  fc.assert(
    fc.property(fc.constantFrom('tap', 'pcap', ''), fc.array(field), (type, fields) => {
      isTold(() => parseNetdev([type, 'id=a', ...fields].join(',')))
    }),
    { numRuns: 3000 },
  )
})

test('whatever a config file says, it is a config or a ConfigError', () => {
  const marks = ['{', '}', '[', ']', ': ', ', ', '"', "'", '|', '>', '#', '---', '...', '~', '\t']
  const pieces = ['ports:', 'links:', '- ', '  ', '\n', 'id: a', 'type: tap', '&a', '*a', '<<']
  const words = fc.constantFrom(...marks, ...pieces, '!!binary', 'null', '1e9')
  fc.assert(
    fc.property(fc.oneof(fc.array(words), fc.array(fc.string())), (parts) => {
      isTold(() => parseConfig(parts.join(''), 'x.yaml'))
    }),
    { numRuns: 3000 },
  )
})
