/** Commands of the control queue (spec §3.6): what each does, and what it is refused for. */
import { describe, expect, test } from 'vitest'
import * as bits from '../../../src/abi/virtio-features.ts'
import { VIRTIO_NET_S_ANNOUNCE } from '../../../src/abi/virtio-net.ts'
import { CONTROL_DEVICE_ERROR } from '../../../src/virtio/device/control-queue.ts'
import type { ControlDevice } from '../../support/control-device.ts'
import { controlDevice, DEVICE_MAC, MAX_PAIRS, OFFERED } from '../../support/control-device.ts'
import { bytesOf } from '../../support/flow-frames.ts'
import { RSS_KEY } from '../../support/rss-vectors.ts'

const OK = 0
const ERR = 1

type Part = number | Iterable<number>
const le16 = (value: number): number[] => [value & 0xff, value >>> 8]
const le32 = (value: number): number[] => [...le16(value & 0xffff), ...le16(value >>> 16)]

function run(device: ControlDevice, ...parts: Part[]): number {
  return device.queue.execute(bytesOf(...parts), 1)
}

/** The command is refused, and neither the device nor its owner sees anything of it. */
function expectRefused(device: ControlDevice, ...parts: Part[]): void {
  const before = device.state.saveState()
  const told = device.events.length
  expect(run(device, ...parts)).toBe(ERR)
  expect(device.state.saveState()).toEqual(before)
  expect(device.events).toHaveLength(told)
}

const without = (...numbers: number[]): ControlDevice =>
  controlDevice(OFFERED & ~bits.featureMask(...numbers))

const macs = (count: number, first: number): number[] =>
  Array.from({ length: count }, (_, at) => [first, 0, 0, 0, 1, at]).flat()

interface RssFields {
  hashTypes?: number
  mask?: number
  unclassified?: number
  table?: number[]
  pairs?: number
  key?: Iterable<number>
  keyLength?: number
}

function rssConfig(fields: RssFields = {}): number[] {
  const { hashTypes = 0x3f, unclassified = 0, table = [0, 1, 2, 3], pairs = 4 } = fields
  const key = [...(fields.key ?? RSS_KEY)]
  const { mask = table.length - 1, keyLength = key.length } = fields
  const head = [4, 1, ...le32(hashTypes), ...le16(mask), ...le16(unclassified)]
  return [...head, ...table.flatMap(le16), ...le16(pairs), keyLength, ...key]
}

const hashConfig = (hashTypes: number, key: Iterable<number>, reserved = 0): number[] => {
  const keyBytes = [...key]
  return [
    4,
    2,
    ...le32(hashTypes),
    ...Array(4).fill(le16(reserved)).flat(),
    keyBytes.length,
    ...keyBytes,
  ]
}

describe('form', () => {
  test('a missing header or no room for the answer is a device error', () => {
    const device = controlDevice()
    expect(device.queue.execute(bytesOf(), 1)).toBe(CONTROL_DEVICE_ERROR)
    expect(device.queue.execute(bytesOf(0), 1)).toBe(CONTROL_DEVICE_ERROR)
    expect(device.queue.execute(bytesOf(0, 0, 0), 0)).toBe(CONTROL_DEVICE_ERROR)
    expect(device.state.filter.promisc).toBe(true)
  })

  test.each([
    [6, 0],
    [255, 0],
    [0, 6],
    [1, 2],
    [2, 2],
    [3, 1],
    [4, 3],
    [5, 1],
  ])('class %d command %d is not known', (commandClass, command) => {
    const device = controlDevice()
    device.state.requestAnnounce(0)
    expectRefused(device, commandClass, command, new Uint8Array(64))
  })
})

describe('receive modes', () => {
  test.each([
    [0, 'promisc', bits.VIRTIO_NET_F_CTRL_RX],
    [1, 'allmulti', bits.VIRTIO_NET_F_CTRL_RX],
    [2, 'alluni', bits.VIRTIO_NET_F_CTRL_RX_EXTRA],
    [3, 'nomulti', bits.VIRTIO_NET_F_CTRL_RX_EXTRA],
    [4, 'nouni', bits.VIRTIO_NET_F_CTRL_RX_EXTRA],
    [5, 'nobcast', bits.VIRTIO_NET_F_CTRL_RX_EXTRA],
  ] as const)('command %d sets %s', (command, flag, bit) => {
    const device = controlDevice()
    expect(run(device, 0, command, 1)).toBe(OK)
    expect(device.state.filter[flag]).toBe(true)
    expect(run(device, 0, command, 0)).toBe(OK)
    expect(device.state.filter[flag]).toBe(false)
    expectRefused(device, 0, command)
    expectRefused(without(bit), 0, command, 1)
  })
})

describe('MAC addresses', () => {
  test('TABLE_SET replaces both parts', () => {
    const device = controlDevice()
    const multicast = [0x33, 0x33, 0, 0, 0, 1]
    expect(run(device, 1, 0, le32(2), macs(2, 2), le32(1), multicast)).toBe(OK)
    expect(device.state.filter.unicast.flatMap((mac) => [...mac])).toEqual(macs(2, 2))
    expect(device.state.filter.multicast).toEqual([bytesOf(multicast)])
    expect(run(device, 1, 0, le32(0), le32(0))).toBe(OK)
    expect(device.state.filter.unicast).toEqual([])
    expect(device.state.filter.multicast).toEqual([])
  })

  test('a part that does not fit the 64 entries sets its overflow flag', () => {
    const device = controlDevice()
    const { filter } = device.state
    expect(run(device, 1, 0, le32(65), macs(65, 2), le32(64), macs(64, 3))).toBe(OK)
    expect([filter.unicastOverflow, filter.multicastOverflow]).toEqual([true, false])
    expect(filter.multicast).toHaveLength(64)
    expect(run(device, 1, 0, le32(60), macs(60, 2), le32(5), macs(5, 3))).toBe(OK)
    expect([filter.unicastOverflow, filter.multicastOverflow]).toEqual([false, true])
    expect(filter.unicast).toHaveLength(60)
  })

  test.each([
    ['nothing', []],
    ['half a count', [1, 0]],
    ['fewer unicast addresses than counted', [le32(2), macs(1, 2)]],
    ['no second count', [le32(1), macs(1, 2)]],
    ['fewer multicast addresses than counted', [le32(0), le32(2), macs(1, 3)]],
    ['a byte too many', [le32(0), le32(1), macs(1, 3), 0]],
    ['counts whose bytes wrap 32 bits', [le32(0x2aaa_aaab), le32(0x2aaa_aaab), macs(1, 3)]],
    ['the highest counts', [le32(0xffff_ffff), le32(0xffff_ffff)]],
  ])('TABLE_SET is refused with %s', (_, parts) => {
    const device = controlDevice()
    expect(run(device, 1, 0, le32(1), macs(1, 2), le32(1), macs(1, 3))).toBe(OK)
    expectRefused(device, 1, 0, ...(parts as Part[]))
  })

  test('TABLE_SET needs CTRL_RX', () => {
    expectRefused(without(bits.VIRTIO_NET_F_CTRL_RX), 1, 0, le32(0), le32(0))
  })

  test('ADDR_SET takes exactly six bytes and tells the owner', () => {
    const device = controlDevice()
    const mac = bytesOf(2, 1, 2, 3, 0xfe, 0xff)
    expect(run(device, 1, 1, mac)).toBe(OK)
    expect(device.state.filter.mac).toEqual(mac)
    expect(device.events).toEqual([['mac', mac]])
    expectRefused(device, 1, 1, DEVICE_MAC.subarray(1))
    expectRefused(device, 1, 1, DEVICE_MAC, 0)
  })

  test('ADDR_SET needs CTRL_MAC_ADDR or CTRL_RX', () => {
    const { VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_RX } = bits
    expect(run(without(VIRTIO_NET_F_CTRL_RX), 1, 1, DEVICE_MAC)).toBe(OK)
    expect(run(without(VIRTIO_NET_F_CTRL_MAC_ADDR), 1, 1, DEVICE_MAC)).toBe(OK)
    expectRefused(without(VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_MAC_ADDR), 1, 1, DEVICE_MAC)
  })
})

describe('VLANs', () => {
  test('a driver that can filter starts with none and adds and deletes', () => {
    const device = controlDevice()
    const { filter } = device.state
    expect(filter.isVlanAllowed(5)).toBe(false)
    expect(run(device, 2, 0, le16(5))).toBe(OK)
    expect(run(device, 2, 0, le16(4095))).toBe(OK)
    expect([5, 6, 4095].map((id) => filter.isVlanAllowed(id))).toEqual([true, false, true])
    expect(run(device, 2, 1, le16(5))).toBe(OK)
    expect([5, 4095].map((id) => filter.isVlanAllowed(id))).toEqual([false, true])
  })

  test('ids end at 4095, and one byte is no id', () => {
    expectRefused(controlDevice(), 2, 0, le16(4096))
    expectRefused(controlDevice(), 2, 0, le16(0xffff))
    expectRefused(controlDevice(), 2, 1, 5)
  })

  test('without CTRL_VLAN all are allowed and none can be changed', () => {
    const device = without(bits.VIRTIO_NET_F_CTRL_VLAN)
    expect(device.state.filter.isVlanAllowed(5)).toBe(true)
    expectRefused(device, 2, 1, le16(5))
  })
})

describe('announcements', () => {
  test('an acknowledgement is good once per request, and says how many are left', () => {
    const device = controlDevice()
    expectRefused(device, 3, 0)
    expect(device.state.requestAnnounce(2)).toBe(true)
    expect(device.state.status & VIRTIO_NET_S_ANNOUNCE).not.toBe(0)
    expect(run(device, 3, 0)).toBe(OK)
    expect(device.state.status & VIRTIO_NET_S_ANNOUNCE).toBe(0)
    expect(device.events).toEqual([['announced', 2]])
    expectRefused(device, 3, 0)
  })

  test('need GUEST_ANNOUNCE', () => {
    const device = without(bits.VIRTIO_NET_F_GUEST_ANNOUNCE)
    expect(device.state.requestAnnounce(1)).toBe(false)
    expect(device.state.status & VIRTIO_NET_S_ANNOUNCE).toBe(0)
    expectRefused(device, 3, 0)
  })
})

describe('queue pairs', () => {
  test('PAIRS_SET takes 1 to the maximum', () => {
    const device = controlDevice()
    expect(run(device, 4, 0, le16(MAX_PAIRS))).toBe(OK)
    expect(device.state.pairs).toBe(MAX_PAIRS)
    expect(run(device, 4, 0, le16(MAX_PAIRS))).toBe(OK)
    expect(run(device, 4, 0, le16(1))).toBe(OK)
    expect(device.events).toEqual([
      ['pairs', MAX_PAIRS],
      ['pairs', 1],
    ])
    for (const pairs of [0, MAX_PAIRS + 1, 0x8001, 0xffff]) expectRefused(device, 4, 0, le16(pairs))
    expectRefused(device, 4, 0, 1)
    expectRefused(without(bits.VIRTIO_NET_F_MQ), 4, 0, le16(1))
  })

  test('PAIRS_SET switches RSS off; a refused one does not', () => {
    const device = controlDevice()
    expect(run(device, rssConfig())).toBe(OK)
    expectRefused(device, 4, 0, le16(0))
    expect(run(device, 4, 0, le16(2))).toBe(OK)
    expect(device.state.rss.config).toBeNull()
    expect(device.events.slice(-2)).toEqual([
      ['rss', null],
      ['pairs', 2],
    ])
  })
})

describe('RSS_CONFIG', () => {
  test('sets hash types, table, queues and key', () => {
    const device = controlDevice()
    expect(run(device, rssConfig({ unclassified: 3, table: [3, 1], pairs: 3 }))).toBe(OK)
    expect(device.state.rss.config).toEqual({
      isSteering: true,
      hashTypes: 0x3f,
      unclassifiedQueue: 3,
      indirectionTable: [3, 1],
      hashKey: RSS_KEY,
    })
    expect(device.state.pairs).toBe(3)
    expect(device.events.map(([what]) => what)).toEqual(['rss', 'pairs'])
  })

  test('a table of 128 and a short key are taken', () => {
    const device = controlDevice()
    const table = Array.from({ length: 128 }, (_, at) => at % MAX_PAIRS)
    expect(run(device, rssConfig({ table, key: [1] }))).toBe(OK)
    expect(device.state.rss.config?.indirectionTable).toEqual(table)
  })

  test('no key and no types switch it off', () => {
    const device = controlDevice()
    expect(run(device, rssConfig())).toBe(OK)
    expect(run(device, rssConfig({ hashTypes: 0, key: [], pairs: 2 }))).toBe(OK)
    expect(device.state.rss.config).toBeNull()
    expect(device.state.pairs).toBe(2)
  })

  test.each<[string, RssFields]>([
    ['a table that is no power of two', { table: [0, 1, 2] }],
    ['a table of 256', { table: Array.from({ length: 256 }, () => 0) }],
    ['a mask of 0xffff', { mask: 0xffff }],
    ['a mask beyond the data', { mask: 127 }],
    ['an unclassified queue that is not there', { unclassified: MAX_PAIRS }],
    ['a queue that is not there', { table: [0, MAX_PAIRS] }],
    ['no pairs', { pairs: 0 }],
    ['too many pairs', { pairs: MAX_PAIRS + 1 }],
    ['a key of 41 bytes', { key: new Uint8Array(41) }],
    ['a key that is cut off', { keyLength: 40, key: RSS_KEY.subarray(1) }],
    ['types without a key', { key: [] }],
    ['an unknown type', { hashTypes: 0x200 }],
    ['no key, no types and a wrong table', { hashTypes: 0, key: [], table: [0, 1, 2] }],
  ])('is refused with %s', (_, fields) => {
    const device = controlDevice()
    expect(run(device, rssConfig({ table: [0, 1] }))).toBe(OK)
    expectRefused(device, rssConfig(fields))
  })

  test('is refused wherever it is cut', () => {
    const device = controlDevice()
    const whole = rssConfig()
    for (let length = 2; length < whole.length; length++) {
      expectRefused(device, whole.slice(0, length))
    }
  })

  test('needs RSS', () => {
    expectRefused(without(bits.VIRTIO_NET_F_RSS), rssConfig())
  })
})

describe('HASH_CONFIG', () => {
  test('reports without steering, whatever the reserved fields hold', () => {
    const device = controlDevice()
    expect(run(device, hashConfig(0x3f, RSS_KEY, 4))).toBe(OK)
    expect(device.state.rss.isSteering).toBe(false)
    expect(device.state.rss.config).toMatchObject({ hashTypes: 0x3f, indirectionTable: [0] })
    expect(device.state.pairs).toBe(1)
    expect(run(device, hashConfig(0, []))).toBe(OK)
    expect(device.state.rss.config).toBeNull()
  })

  test('is refused wherever it is cut, and without HASH_REPORT', () => {
    const whole = hashConfig(0x3f, RSS_KEY)
    for (let length = 2; length < whole.length; length++) {
      expectRefused(controlDevice(), whole.slice(0, length))
    }
    expectRefused(without(bits.VIRTIO_NET_F_HASH_REPORT), whole)
  })
})

describe('guest offloads', () => {
  const { VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6 } = bits
  const set = (mask: bigint): number[] => [
    5,
    0,
    ...le32(Number(mask & 0xffff_ffffn)),
    ...le32(Number(mask >> 32n)),
  ]

  test('can be lowered and raised within what was negotiated', () => {
    const device = controlDevice()
    const all = device.state.offloads
    expect(all).toBe(bits.featureMask(VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, 46))
    const csum = bits.featureMask(VIRTIO_NET_F_GUEST_CSUM)
    for (const mask of [csum, 0n, all]) {
      expect(run(device, set(mask))).toBe(OK)
      expect(device.state.offloads).toBe(mask)
    }
    expect(device.events).toEqual([csum, 0n, all].map((mask) => ['offloads', mask]))
  })

  test('RSC_EXT is taken out first', () => {
    const device = controlDevice()
    expect(run(device, set(bits.featureMask(bits.VIRTIO_NET_F_RSC_EXT)))).toBe(OK)
    expect(device.state.offloads).toBe(0n)
  })

  test('anything outside is refused', () => {
    const device = controlDevice()
    expectRefused(device, set(bits.featureMask(VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO6)))
    expectRefused(device, set(bits.featureMask(63)))
    expectRefused(device, set(0n).slice(0, 9))
    expectRefused(without(bits.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS), set(0n))
  })
})
