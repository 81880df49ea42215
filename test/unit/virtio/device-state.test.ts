/** A device's state through reset, negotiation, saving and loading; the property tests of it are in
 *  test/property/device-state.test.ts. */
import { describe, expect, test } from 'vitest'
import * as bits from '../../../src/abi/virtio-features.ts'
import { VIRTIO_NET_S_ANNOUNCE, VIRTIO_NET_S_LINK_UP } from '../../../src/abi/virtio-net.ts'
import { ConfigError } from '../../../src/errors.ts'
import { DeviceState } from '../../../src/virtio/device/device-state.ts'
import {
  controlDevice,
  DEVICE_MAC,
  MAX_PAIRS,
  newState,
  OFFERED,
} from '../../support/control-device.ts'
import { bytesOf } from '../../support/flow-frames.ts'
import { RSS_KEY } from '../../support/rss-vectors.ts'

const MAC = bytesOf(2, 0, 0, 0, 0, 9)
const GROUP = bytesOf(1, 0, 0x5e, 0, 0, 1)

/** A device in which nothing is as after a reset. */
function usedState(): DeviceState {
  const state = newState()
  state.negotiate(OFFERED)
  state.deviceStatus = 0x0f
  state.status = 0
  state.requestAnnounce(3)
  state.pairs = 3
  state.offloads = bits.featureMask(bits.VIRTIO_NET_F_GUEST_CSUM)
  const { filter } = state
  filter.setMac(MAC)
  filter.promisc = false
  filter.allmulti = true
  filter.setTable([DEVICE_MAC], [GROUP])
  filter.allowVlan(100, true)
  state.rss.configure({
    isSteering: true,
    hashTypes: 0x1ff,
    unclassifiedQueue: 2,
    indirectionTable: [0, 1, 2, 3],
    hashKey: RSS_KEY,
  })
  return state
}

test('a reset forgets the driver and keeps the link', () => {
  const state = usedState()
  state.reset()
  const fresh = newState()
  fresh.status = 0
  expect(state.saveState()).toEqual(fresh.saveState())
  expect(state.filter.mac).toEqual(DEVICE_MAC)
  expect(newState().status).toBe(VIRTIO_NET_S_LINK_UP)
})

test('negotiation takes offered bits only and turns all offloads on', () => {
  const state = newState()
  const { VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO6 } = bits
  state.negotiate(bits.featureMask(VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO6))
  expect(state.features).toBe(bits.featureMask(VIRTIO_NET_F_GUEST_CSUM))
  expect(state.offloads).toBe(state.features)
})

test('what was saved is loaded, through JSON', () => {
  const saved = usedState().saveState()
  const state = newState()
  state.loadState(JSON.parse(JSON.stringify(saved)))
  expect(state.saveState()).toEqual(saved)
  expect(state.features).toBe(OFFERED)
  expect(state.status).toBe(VIRTIO_NET_S_ANNOUNCE)
  expect(state.announceRounds).toBe(3)
  expect(state.filter.mac).toEqual(MAC)
  expect([99, 100].map((id) => state.filter.isVlanAllowed(id))).toEqual([false, true])
  expect(state.rss.config?.hashKey).toEqual(RSS_KEY)
})

test('without CTRL_GUEST_OFFLOADS the offloads follow from the features', () => {
  const features = OFFERED & ~bits.featureMask(bits.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS)
  const { state } = controlDevice(features)
  const saved = state.saveState()
  expect(saved.offloads).toBeNull()
  const loaded = newState()
  loaded.loadState(saved)
  expect(loaded.offloads).toBe(state.offloads)
})

test('an overflow flag survives', () => {
  const state = newState()
  state.filter.setTable(null, [GROUP])
  const loaded = usedState()
  loaded.loadState(state.saveState())
  expect([loaded.filter.unicastOverflow, loaded.filter.multicastOverflow]).toEqual([true, false])
  expect(loaded.filter.multicast).toEqual([GROUP])
})

describe('a saved state is refused, and nothing of it taken,', () => {
  const saved = usedState().saveState()
  const { filter, rss } = saved
  const features = (...numbers: number[]): string =>
    `0x${(OFFERED & ~bits.featureMask(...numbers)).toString(16)}`

  test.each<[string, string, unknown]>([
    ['when it is not an object', '', 7],
    ['when it is null', '', null],
    ['when it is a list', '', []],
    ['of another version', 'version', { ...saved, version: 2, more: 1 }],
    ['without a version', 'version', {}],
    ['with a key missing', 'pairs', { ...saved, pairs: undefined, more: 1 }],
    ['with a key too many', '', { ...saved, more: 1 }],
    ['of a device with other max_virtqueue_pairs', 'maxPairs', { ...saved, maxPairs: 8 }],
    ['with a feature that is not offered', 'features', { ...saved, features: '0x1' }],
    ['with features of another form', 'features', { ...saved, features: '1' }],
    ['with features without end', 'features', { ...saved, features: `0x${'0'.repeat(99)}` }],
    ['with no pair', 'pairs', { ...saved, pairs: 0 }],
    ['with too many pairs', 'pairs', { ...saved, pairs: MAX_PAIRS + 1 }],
    ['with half a pair', 'pairs', { ...saved, pairs: 1.5 }],
    [
      'with several pairs without MQ and RSS',
      'pairs',
      { ...saved, rss: null, features: features(bits.VIRTIO_NET_F_MQ, bits.VIRTIO_NET_F_RSS) },
    ],
    ['with an unknown status', 'status', { ...saved, status: 4 }],
    [
      'with an announcement that the driver cannot make',
      'status',
      { ...saved, features: features(bits.VIRTIO_NET_F_GUEST_ANNOUNCE) },
    ],
    ['with endless announcements', 'announceRounds', { ...saved, announceRounds: 1e9 }],
    ['with a device status of nine bits', 'deviceStatus', { ...saved, deviceStatus: 256 }],
    ['with half a MAC address', 'mac', { ...saved, mac: '52:54:00' }],
    ['with offloads that were not negotiated', 'offloads', { ...saved, offloads: '0x100' }],
    [
      'with offloads that cannot be set',
      'offloads',
      { ...saved, features: features(bits.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) },
    ],
    ['with a flag that is a number', 'filter.nouni', { ...saved, filter: { ...filter, nouni: 1 } }],
    [
      'with a wrong address',
      'filter.unicast[0]',
      { ...saved, filter: { ...filter, unicast: [1] } },
    ],
    [
      'with more than 64 addresses',
      'filter',
      { ...saved, filter: { ...filter, unicast: Array.from({ length: 64 }, () => saved.mac) } },
    ],
    [
      'with addresses beside an overflow',
      'filter.unicast',
      { ...saved, filter: { ...filter, unicastOverflow: true } },
    ],
    ['with a short VLAN table', 'filter.vlans', { ...saved, filter: { ...filter, vlans: 'ff' } }],
    [
      'with VLANs that cannot be filtered',
      'filter.vlans',
      { ...saved, features: features(bits.VIRTIO_NET_F_CTRL_VLAN) },
    ],
    [
      'with RSS that was not negotiated',
      'rss',
      { ...saved, features: features(bits.VIRTIO_NET_F_RSS) },
    ],
    ['with a wrong RSS', 'rss', { ...saved, rss: { ...rss, indirectionTable: [0, 1, 2] } }],
    ['with no key', 'rss', { ...saved, rss: { ...rss, hashKey: '' } }],
    ['with queues without steering', 'rss', { ...saved, rss: { ...rss, isSteering: false } }],
  ])('%s', (_, path, hostile) => {
    const state = newState()
    const before = state.saveState()
    let thrown: unknown
    try {
      state.loadState(JSON.parse(JSON.stringify(hostile)))
    } catch (error) {
      thrown = error
    }
    expect(thrown).toBeInstanceOf(ConfigError)
    expect(thrown).toMatchObject({ code: 'DEVICE_STATE', path })
    expect(state.saveState()).toEqual(before)
  })
})
