/**
 * The commands of the control virtqueue, carried out on a device's state. VIRTIO 1.3 §5.1.6.5;
 * where the specification leaves the answer open, it is QEMU's.
 *
 *     u8 class, u8 command, data ...    ->    u8 ack: VIRTIO_NET_OK or VIRTIO_NET_ERR
 *
 * A command that is refused has changed nothing. Each one needs the feature that introduces it. Data
 * that is longer than the command's is accepted, as QEMU does, except where the length is the
 * content: MAC addresses.
 */
import * as features from '../../abi/virtio-features.ts'
import {
  VIRTIO_NET_CTRL_ANNOUNCE,
  VIRTIO_NET_CTRL_ANNOUNCE_ACK,
  VIRTIO_NET_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
  VIRTIO_NET_CTRL_HDR_LENGTH,
  VIRTIO_NET_CTRL_MAC,
  VIRTIO_NET_CTRL_MAC_ADDR_SET,
  VIRTIO_NET_CTRL_MAC_TABLE_SET,
  VIRTIO_NET_CTRL_MQ,
  VIRTIO_NET_CTRL_MQ_HASH_CONFIG,
  VIRTIO_NET_CTRL_MQ_RSS_CONFIG,
  VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX,
  VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MIN,
  VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
  VIRTIO_NET_CTRL_RX,
  VIRTIO_NET_CTRL_RX_ALLMULTI,
  VIRTIO_NET_CTRL_RX_ALLUNI,
  VIRTIO_NET_CTRL_RX_NOBCAST,
  VIRTIO_NET_CTRL_RX_NOMULTI,
  VIRTIO_NET_CTRL_RX_NOUNI,
  VIRTIO_NET_CTRL_RX_PROMISC,
  VIRTIO_NET_CTRL_VLAN,
  VIRTIO_NET_CTRL_VLAN_ADD,
  VIRTIO_NET_CTRL_VLAN_DEL,
  VIRTIO_NET_ERR,
  VIRTIO_NET_OK,
  VIRTIO_NET_S_ANNOUNCE,
} from '../../abi/virtio-net.ts'
import type { DeviceState } from './device-state.ts'
import { guestOffloads } from './features.ts'
import type { RssConfig } from '../net/rss.ts'
import { RSS_MAX_INDIRECTION_TABLE_LENGTH, rssConfigFault } from '../net/rss.ts'
import { MAC_TABLE_ENTRIES, VLAN_COUNT } from '../net/rx-filter.ts'

/** Result of `execute` instead of an ack: the buffers have no room for a header or the ack. The
 *  owner breaks the queue and asks for a reset (DEVICE_NEEDS_RESET). */
export const CONTROL_DEVICE_ERROR = -1

const MAC_LENGTH = 6
/** Bytes of virtio_net_rss_config before the table, and between table and key. */
const RSS_HEAD_LENGTH = 8
const RSS_TAIL_LENGTH = 3

/** What the owner of a device has to act on. Called after the state has changed and before the
 *  command is answered. */
export interface ControlEvents {
  /** Another number of queue pairs is in use. */
  pairsChanged(pairs: number): void
  /** The guest offloads were set; see `txOffloads`. */
  offloadsChanged(offloads: bigint): void
  /** RSS or hash reporting was configured or switched off; see `DeviceState.rss`. */
  rssChanged(): void
  /** Six bytes: also `mac` of the config space. */
  macChanged(mac: Uint8Array): void
  /** The pending announcement was made; `rounds` more are wanted, each after a pause. */
  announceAcknowledged(rounds: number): void
}

export class ControlQueue {
  readonly #device: DeviceState
  readonly #events: ControlEvents

  constructor(device: DeviceState, events: ControlEvents) {
    this.#device = device
    this.#events = events
  }

  /**
   * Carries out one command. `command` is all readable bytes of the chain, copied out of the guest's
   * memory; `writableLength` is the room for the answer. Returns VIRTIO_NET_OK, VIRTIO_NET_ERR, or
   * CONTROL_DEVICE_ERROR.
   */
  execute(command: Uint8Array, writableLength: number): number {
    if (command.length < VIRTIO_NET_CTRL_HDR_LENGTH || writableLength < 1) {
      return CONTROL_DEVICE_ERROR
    }
    const [commandClass, number] = command
    const data = command.subarray(VIRTIO_NET_CTRL_HDR_LENGTH)
    return this.#run(commandClass, number, data) ? VIRTIO_NET_OK : VIRTIO_NET_ERR
  }

  #run(commandClass: number, command: number, data: Uint8Array): boolean {
    switch (commandClass) {
      case VIRTIO_NET_CTRL_RX:
        return this.#setRxMode(command, data)
      case VIRTIO_NET_CTRL_MAC:
        return this.#setMac(command, data)
      case VIRTIO_NET_CTRL_VLAN:
        return this.#setVlan(command, data)
      case VIRTIO_NET_CTRL_ANNOUNCE:
        return command === VIRTIO_NET_CTRL_ANNOUNCE_ACK && this.#acknowledgeAnnounce()
      case VIRTIO_NET_CTRL_MQ:
        return this.#setQueues(command, data)
      case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
        return command === VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET && this.#setOffloads(data)
      default:
        return false
    }
  }

  #setRxMode(command: number, data: Uint8Array): boolean {
    const isExtra = command > VIRTIO_NET_CTRL_RX_ALLMULTI
    const bit = isExtra ? features.VIRTIO_NET_F_CTRL_RX_EXTRA : features.VIRTIO_NET_F_CTRL_RX
    if (!this.#device.has(bit) || data.length < 1) return false
    const { filter } = this.#device
    const isOn = data[0] !== 0
    switch (command) {
      case VIRTIO_NET_CTRL_RX_PROMISC:
        filter.promisc = isOn
        return true
      case VIRTIO_NET_CTRL_RX_ALLMULTI:
        filter.allmulti = isOn
        return true
      case VIRTIO_NET_CTRL_RX_ALLUNI:
        filter.alluni = isOn
        return true
      case VIRTIO_NET_CTRL_RX_NOMULTI:
        filter.nomulti = isOn
        return true
      case VIRTIO_NET_CTRL_RX_NOUNI:
        filter.nouni = isOn
        return true
      case VIRTIO_NET_CTRL_RX_NOBCAST:
        filter.nobcast = isOn
        return true
      default:
        return false
    }
  }

  #setMac(command: number, data: Uint8Array): boolean {
    const canFilter = this.#device.has(features.VIRTIO_NET_F_CTRL_RX)
    switch (command) {
      case VIRTIO_NET_CTRL_MAC_TABLE_SET:
        return canFilter && this.#setMacTable(data)
      case VIRTIO_NET_CTRL_MAC_ADDR_SET: {
        // §5.1.6.5.2 names CTRL_RX, §5.1.3 CTRL_MAC_ADDR; Linux asks for the latter only.
        const canSet = canFilter || this.#device.has(features.VIRTIO_NET_F_CTRL_MAC_ADDR)
        if (!canSet || data.length !== MAC_LENGTH) return false
        this.#device.filter.setMac(data)
        this.#events.macChanged(this.#device.filter.mac)
        return true
      }
      default:
        return false
    }
  }

  #setMacTable(data: Uint8Array): boolean {
    const unicastCount = u32(data, 0)
    if (unicastCount < 0) return false
    const multicastAt = 4 + unicastCount * MAC_LENGTH
    const multicastCount = u32(data, multicastAt)
    if (multicastCount < 0) return false
    if (multicastAt + 4 + multicastCount * MAC_LENGTH !== data.length) return false
    this.#device.filter.setTable(
      macs(data, 4, unicastCount),
      macs(data, multicastAt + 4, multicastCount),
    )
    return true
  }

  #setVlan(command: number, data: Uint8Array): boolean {
    const isAllowed = command === VIRTIO_NET_CTRL_VLAN_ADD
    if (!isAllowed && command !== VIRTIO_NET_CTRL_VLAN_DEL) return false
    const id = u16(data, 0)
    if (!this.#device.has(features.VIRTIO_NET_F_CTRL_VLAN) || id < 0 || id >= VLAN_COUNT) {
      return false
    }
    this.#device.filter.allowVlan(id, isAllowed)
    return true
  }

  #acknowledgeAnnounce(): boolean {
    const device = this.#device
    // Only pending for a driver with VIRTIO_NET_F_GUEST_ANNOUNCE.
    if ((device.status & VIRTIO_NET_S_ANNOUNCE) === 0) return false
    device.status &= ~VIRTIO_NET_S_ANNOUNCE
    this.#events.announceAcknowledged(device.announceRounds)
    return true
  }

  #setQueues(command: number, data: Uint8Array): boolean {
    switch (command) {
      case VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET: {
        const pairs = u16(data, 0)
        if (!this.#device.has(features.VIRTIO_NET_F_MQ) || !this.#isPairs(pairs)) return false
        // The last of the two kinds of command counts: §5.1.6.5.5.
        this.#setRss(null)
        this.#setPairs(pairs)
        return true
      }
      case VIRTIO_NET_CTRL_MQ_RSS_CONFIG:
        return this.#device.has(features.VIRTIO_NET_F_RSS) && this.#configureRss(data)
      case VIRTIO_NET_CTRL_MQ_HASH_CONFIG:
        return this.#device.has(features.VIRTIO_NET_F_HASH_REPORT) && this.#configureHash(data)
      default:
        return false
    }
  }

  #isPairs(pairs: number): boolean {
    return (
      pairs >= VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MIN &&
      pairs <= VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX &&
      pairs <= this.#device.limits.maxPairs
    )
  }

  #configureRss(data: Uint8Array): boolean {
    const hashTypes = u32(data, 0)
    const length = u16(data, 4) + 1
    // -1 + 1: there is no mask.
    if (length < 1 || length > RSS_MAX_INDIRECTION_TABLE_LENGTH) return false
    const tailAt = RSS_HEAD_LENGTH + 2 * length
    const pairs = u16(data, tailAt)
    const hashKey = keyOf(data, tailAt + RSS_TAIL_LENGTH - 1)
    if (hashKey === null || !this.#isPairs(pairs)) return false
    const indirectionTable = Array.from({ length }, (_, entry) =>
      u16(data, RSS_HEAD_LENGTH + 2 * entry),
    )
    const unclassifiedQueue = u16(data, 6)
    const config = { isSteering: true, hashTypes, unclassifiedQueue, indirectionTable, hashKey }
    if (!this.#takeRss(config)) return false
    this.#setPairs(pairs)
    return true
  }

  /** The same layout as RSS_CONFIG with a table of one entry, whose 16-bit fields are reserved.
   *  Linux before 6.15 leaves max_tx_vq in them, so they are not looked at. */
  #configureHash(data: Uint8Array): boolean {
    const hashTypes = u32(data, 0)
    const hashKey = keyOf(data, RSS_HEAD_LENGTH + 2 + RSS_TAIL_LENGTH - 1)
    if (hashKey === null) return false
    return this.#takeRss({
      isSteering: false,
      hashTypes,
      unclassifiedQueue: 0,
      indirectionTable: [0],
      hashKey,
    })
  }

  #takeRss(config: RssConfig): boolean {
    const isOff = config.hashTypes === 0 && config.hashKey.length === 0
    // What stands in the table must be right even then.
    const checked = isOff ? { ...config, hashKey: new Uint8Array(1) } : config
    if (rssConfigFault(checked, this.#device.limits.maxPairs) !== '') return false
    this.#setRss(isOff ? null : config)
    return true
  }

  #setRss(config: RssConfig | null): void {
    const { rss } = this.#device
    if (config === null && rss.config === null) return
    rss.configure(config)
    this.#events.rssChanged()
  }

  #setPairs(pairs: number): void {
    if (pairs === this.#device.pairs) return
    this.#device.pairs = pairs
    this.#events.pairsChanged(pairs)
  }

  #setOffloads(data: Uint8Array): boolean {
    const device = this.#device
    if (!device.has(features.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) || data.length < 8) return false
    const view = new DataView(data.buffer, data.byteOffset)
    // Windows drivers set RSC_EXT here, which is no guest offload.
    const rsc = features.featureMask(features.VIRTIO_NET_F_RSC_EXT)
    const offloads = view.getBigUint64(0, true) & ~rsc
    if ((offloads & ~guestOffloads(device.features)) !== 0n) return false
    device.offloads = offloads
    this.#events.offloadsChanged(offloads)
    return true
  }
}

/** Little-endian at `at`; -1 where the data ends before. */
function u16(data: Uint8Array, at: number): number {
  return at + 2 <= data.length ? data[at] | (data[at + 1] << 8) : -1
}

function u32(data: Uint8Array, at: number): number {
  return at + 4 <= data.length ? u16(data, at) + u16(data, at + 2) * 0x1_0000 : -1
}

/** `count` addresses from `at` on, which are there; null: more than a table can hold. */
function macs(data: Uint8Array, at: number, count: number): Uint8Array[] | null {
  if (count > MAC_TABLE_ENTRIES) return null
  return Array.from({ length: count }, (_, entry) =>
    data.subarray(at + entry * MAC_LENGTH, at + (entry + 1) * MAC_LENGTH),
  )
}

/** hash_key_length at `at` with the key behind it, copied; null: it is not all there. */
function keyOf(data: Uint8Array, at: number): Uint8Array | null {
  if (at >= data.length || data.length - at - 1 < data[at]) return null
  return data.slice(at + 1, at + 1 + data[at])
}
