/**
 * Receive-side scaling and hash reporting of a network device: the hash over the fields that the
 * enabled hash types name, the receive queue that the indirection table has for it, and what
 * virtio_net_hdr_v1_hash says about it.
 *
 * Sources: VIRTIO 1.3 §5.1.6.4 (which fields, and their report), §5.1.6.5.7 (steering).
 * Without VIRTIO_NET_F_HASH_TUNNEL only the outer headers count.
 */
import {
  VIRTIO_NET_HASH_REPORT_NONE,
  VIRTIO_NET_RSS_HASH_TYPE_IP_EX,
  VIRTIO_NET_RSS_HASH_TYPE_IPv4,
  VIRTIO_NET_RSS_HASH_TYPE_IPv6,
  VIRTIO_NET_RSS_HASH_TYPE_TCP_EX,
  VIRTIO_NET_RSS_HASH_TYPE_TCPv4,
  VIRTIO_NET_RSS_HASH_TYPE_TCPv6,
  VIRTIO_NET_RSS_HASH_TYPE_UDP_EX,
  VIRTIO_NET_RSS_HASH_TYPE_UDPv4,
  VIRTIO_NET_RSS_HASH_TYPE_UDPv6,
} from '../../abi/virtio-net.ts'
import {
  FlowKey,
  IPPROTO_TCP,
  IPPROTO_UDP,
  IPV4_ADDRESS_WORDS,
  IPV6_ADDRESS_WORDS,
} from '../../wire/flow-key.ts'
import { Toeplitz, TOEPLITZ_KEY_LENGTH_MAX } from './toeplitz.ts'

/** The device's rss_max_key_size, rss_max_indirection_table_length and supported_hash_types. */
export const RSS_MAX_KEY_SIZE: number = TOEPLITZ_KEY_LENGTH_MAX
export const RSS_MAX_INDIRECTION_TABLE_LENGTH = 128
export const RSS_SUPPORTED_HASH_TYPES: number =
  VIRTIO_NET_RSS_HASH_TYPE_IPv4 |
  VIRTIO_NET_RSS_HASH_TYPE_TCPv4 |
  VIRTIO_NET_RSS_HASH_TYPE_UDPv4 |
  VIRTIO_NET_RSS_HASH_TYPE_IPv6 |
  VIRTIO_NET_RSS_HASH_TYPE_TCPv6 |
  VIRTIO_NET_RSS_HASH_TYPE_UDPv6 |
  VIRTIO_NET_RSS_HASH_TYPE_IP_EX |
  VIRTIO_NET_RSS_HASH_TYPE_TCP_EX |
  VIRTIO_NET_RSS_HASH_TYPE_UDP_EX

/** Hash types over ports as well. */
const WITH_PORTS_MASK: number =
  VIRTIO_NET_RSS_HASH_TYPE_TCPv4 |
  VIRTIO_NET_RSS_HASH_TYPE_UDPv4 |
  VIRTIO_NET_RSS_HASH_TYPE_TCPv6 |
  VIRTIO_NET_RSS_HASH_TYPE_UDPv6 |
  VIRTIO_NET_RSS_HASH_TYPE_TCP_EX |
  VIRTIO_NET_RSS_HASH_TYPE_UDP_EX

/** What RSS_CONFIG or HASH_CONFIG says. Without steering (HASH_CONFIG) the table is [0] and the
 *  unclassified queue 0. */
export interface RssConfig {
  /** The hash picks the queue (VIRTIO_NET_F_RSS); false: it is only reported. */
  readonly isSteering: boolean
  readonly hashTypes: number
  /** Receive queue (0 is receiveq1) of frames that have no hash. */
  readonly unclassifiedQueue: number
  /** Receive queues. */
  readonly indirectionTable: readonly number[]
  readonly hashKey: Uint8Array
}

/** Why a device with `maxPairs` queue pairs refuses a configuration; empty: it does not. */
export function rssConfigFault(config: RssConfig, maxPairs: number): string {
  const { hashTypes, unclassifiedQueue, indirectionTable, hashKey } = config
  const { length } = indirectionTable
  if ((hashTypes & ~RSS_SUPPORTED_HASH_TYPES) !== 0) return 'an unknown hash type'
  if (length === 0 || length > RSS_MAX_INDIRECTION_TABLE_LENGTH || (length & (length - 1)) !== 0) {
    return `an indirection table of ${length} entries`
  }
  if (unclassifiedQueue >= maxPairs) return `unclassified queue ${unclassifiedQueue}`
  const queue = indirectionTable.find((entry) => entry >= maxPairs)
  if (queue !== undefined) return `queue ${queue} in the indirection table`
  if (hashKey.length > RSS_MAX_KEY_SIZE) return `a key of ${hashKey.length} bytes`
  if (hashKey.length === 0) return 'no key'
  return ''
}

export class Rss {
  /** The hash of the last frame, an int32, and its VIRTIO_NET_HASH_REPORT_*. */
  hashValue = 0
  hashReport: number = VIRTIO_NET_HASH_REPORT_NONE

  #config: RssConfig | null = null
  #isSteering = false
  #hashTypes = 0
  #unclassifiedQueue = 0
  #tableMask = 0
  readonly #table: Int32Array = new Int32Array(RSS_MAX_INDIRECTION_TABLE_LENGTH)
  readonly #toeplitz: Toeplitz = new Toeplitz()
  readonly #key: FlowKey = new FlowKey()

  /** What is configured, null after a reset and when it was switched off. */
  get config(): RssConfig | null {
    return this.#config
  }

  /** Queues are picked by `queueFor`. @hot */
  get isSteering(): boolean {
    return this.#isSteering
  }

  /** Takes a configuration in which `rssConfigFault` finds no fault; null: off. */
  configure(config: RssConfig | null): void {
    this.#config = config
    this.#isSteering = config?.isSteering ?? false
    this.#hashTypes = config?.hashTypes ?? 0
    this.#unclassifiedQueue = config?.unclassifiedQueue ?? 0
    this.#table.fill(0)
    this.#table.set(config?.indirectionTable ?? [])
    this.#tableMask = (config?.indirectionTable.length ?? 1) - 1
    if (config !== null) this.#toeplitz.setKey(config.hashKey)
  }

  /**
   * Hashes a frame of which `length` bytes at `offset` can be read, and leaves the result in
   * `hashValue` and `hashReport`.
   * @hot
   */
  calculate(bytes: Uint8Array, offset: number, length: number): void {
    this.hashValue = 0
    this.hashReport = VIRTIO_NET_HASH_REPORT_NONE
    if (this.#hashTypes === 0) return
    const key = this.#key
    key.parse(bytes, offset, length)
    const type = this.#hashType(key, bytes)
    if (type === 0) return
    const words = (type & WITH_PORTS_MASK) === 0 ? key.addressWords : key.addressWords + 1
    this.hashValue = this.#toeplitz.hash(key.words, words)
    // VIRTIO_NET_HASH_TYPE_X = 1 << (VIRTIO_NET_HASH_REPORT_X - 1)
    this.hashReport = 32 - Math.clz32(type)
  }

  /** The hash type that applies to a frame, 0: none that is enabled. @hot */
  #hashType(key: FlowKey, bytes: Uint8Array): number {
    const enabled = this.#hashTypes
    if (key.addressWords === IPV4_ADDRESS_WORDS) {
      return pick(
        enabled,
        key.transport,
        VIRTIO_NET_RSS_HASH_TYPE_TCPv4,
        VIRTIO_NET_RSS_HASH_TYPE_UDPv4,
        VIRTIO_NET_RSS_HASH_TYPE_IPv4,
      )
    }
    if (key.addressWords !== IPV6_ADDRESS_WORDS) return 0
    if (key.hasExtensions) {
      const type = pick(
        enabled,
        key.transport,
        VIRTIO_NET_RSS_HASH_TYPE_TCP_EX,
        VIRTIO_NET_RSS_HASH_TYPE_UDP_EX,
        VIRTIO_NET_RSS_HASH_TYPE_IP_EX,
      )
      if (type !== 0) {
        key.useMobileAddresses(bytes)
        return type
      }
    }
    return pick(
      enabled,
      key.transport,
      VIRTIO_NET_RSS_HASH_TYPE_TCPv6,
      VIRTIO_NET_RSS_HASH_TYPE_UDPv6,
      VIRTIO_NET_RSS_HASH_TYPE_IPv6,
    )
  }

  /**
   * The receive queue (0 is receiveq1) for a frame, of the first `pairs`, and its hash as by
   * `calculate`. Only while `isSteering`. An entry of the table may name a queue that is not active:
   * the driver must not do that, and gets one that is.
   * @hot
   */
  queueFor(bytes: Uint8Array, offset: number, length: number, pairs: number): number {
    this.calculate(bytes, offset, length)
    const queue =
      this.hashReport === VIRTIO_NET_HASH_REPORT_NONE
        ? this.#unclassifiedQueue
        : this.#table[this.hashValue & this.#tableMask]
    return queue < pairs ? queue : queue % pairs
  }
}

/** @hot */
function pick(enabled: number, transport: number, tcp: number, udp: number, ip: number): number {
  if (transport === IPPROTO_TCP && (enabled & tcp) !== 0) return tcp
  if (transport === IPPROTO_UDP && (enabled & udp) !== 0) return udp
  return enabled & ip
}
