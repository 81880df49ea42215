/** Checks of the options of a switch, and names of offload bits. */
import { describe, expect, test } from 'vitest'
import { ConfigError } from '../../../src/errors.ts'
import type { SwitchOptions } from '../../../src/switch/api.ts'
import { checkSwitchOptions, offloadNames } from '../../../src/switch/switch-options.ts'

describe('options', () => {
  test.each<SwitchOptions>([
    {},
    { io: 'auto' },
    { io: 'read-write', pace: 'busy', groupAddresses: '802.1D' },
    { macAgingS: 1, macTableSize: 16 },
    { macAgingS: 1_000_000, macTableSize: 1_048_576 },
    { snooping: { igmp: true, maxGroups: 16, maxGroupsPerPort: 1 } },
  ])('%o are taken', (options) => {
    expect(() => checkSwitchOptions(options)).not.toThrow()
  })

  test.each<[string, object, string]>([
    ['io', { io: 'epoll' }, 'io must be one of auto, io_uring-multishot, read-write'],
    ['pace', { pace: 'lazy' }, 'pace must be one of adaptive, busy, interrupt, warm'],
    [
      'groupAddresses',
      { groupAddresses: '' },
      'groupAddresses must be one of transparent, 802.1D, or a list of last octets',
    ],
    [
      'groupAddresses',
      { groupAddresses: ['10'] },
      '"10" in groupAddresses is not an octet from 00 to 0f',
    ],
    ['macAgingS', { macAgingS: 0 }, 'macAgingS must be 1 to 1000000'],
    ['macAgingS', { macAgingS: 1.5 }, 'macAgingS must be 1 to 1000000'],
    ['macAgingS', { macAgingS: Number.NaN }, 'macAgingS must be 1 to 1000000'],
    ['macTableSize', { macTableSize: 15 }, 'macTableSize must be 16 to 1048576'],
    ['macTableSize', { macTableSize: 1_048_577 }, 'macTableSize must be 16 to 1048576'],
    [
      'snooping.maxGroups',
      { snooping: { maxGroups: 15 } },
      'snooping.maxGroups must be 16 to 65536',
    ],
    [
      'snooping.maxGroupsPerPort',
      { snooping: { maxGroupsPerPort: 0 } },
      'snooping.maxGroupsPerPort must be 1 to 65536',
    ],
  ])('a wrong %s is refused with its range: %o', (path, options, message) => {
    let error: unknown
    try {
      checkSwitchOptions(options)
    } catch (thrown) {
      error = thrown
    }
    expect(error).toBeInstanceOf(ConfigError)
    expect(error).toMatchObject({ code: 'BAD_OPTION', path, message })
  })
})

test('each offload bit has its own word, in the order of the bits', () => {
  const words = [
    'csum',
    'tso4',
    'tso6',
    'ecn',
    'ufo',
    'uso4',
    'uso6',
    'udp-tunnel',
    'udp-tunnel-csum',
  ]
  expect(offloadNames(0)).toEqual([])
  words.forEach((word, bit) => expect(offloadNames(1 << bit)).toEqual([word]))
  expect(offloadNames(0x1ff)).toEqual(words)
})
