/**
 * What a network device knows about its driver's wishes: set by the transport (features, status),
 * by the control queue (control-queue.ts) and by the migration of a guest (saved-state.ts).
 *
 *     reset -> negotiate(features) -> commands on the control queue ...
 *
 * It belongs to one owner, who acts on it between two bursts; the filter and RSS in it are what the
 * data plane asks per frame. VIRTIO 1.3 §5.1.4 and §5.1.6.5.
 */
import {
  VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
} from '../../abi/virtio-features.ts'
import { VIRTIO_NET_S_ANNOUNCE, VIRTIO_NET_S_LINK_UP } from '../../abi/virtio-net.ts'
import { guestOffloads, has } from './features.ts'
import { Rss } from '../net/rss.ts'
import { RxFilter } from '../net/rx-filter.ts'
import type { SavedState } from './saved-state.ts'
import {
  ANNOUNCE_ROUNDS_MAX,
  formatHex,
  formatMacBytes,
  parseSavedState,
  SAVED_STATE_VERSION,
} from './saved-state.ts'

/** What a device is made with and no driver changes. */
export interface DeviceLimits {
  /** Feature bits that the device offers. */
  readonly offered: bigint
  /** max_virtqueue_pairs: 1..0x8000. */
  readonly maxPairs: number
  /** Six bytes; the address after a reset. */
  readonly mac: Uint8Array
}

export class DeviceState {
  readonly limits: DeviceLimits
  /** Negotiated feature bits. */
  features = 0n
  /** The device status field of the transport: u8. */
  deviceStatus = 0
  /** `status` of virtio_net_config: VIRTIO_NET_S_* masks. */
  status: number = VIRTIO_NET_S_LINK_UP
  /** Queue pairs in use: 1..maxPairs. */
  pairs = 1
  /** Guest offloads that are on, as in CTRL_GUEST_OFFLOADS_SET. */
  offloads = 0n
  /** Announcements that the driver shall still be asked for after the pending one. */
  announceRounds = 0
  readonly filter: RxFilter = new RxFilter()
  readonly rss: Rss = new Rss()

  constructor(limits: DeviceLimits) {
    this.limits = limits
    this.filter.setMac(limits.mac)
  }

  /** As after a device reset. Whether the link is up is no wish of the driver's and stays. */
  reset(): void {
    this.features = 0n
    this.deviceStatus = 0
    this.status &= VIRTIO_NET_S_LINK_UP
    this.pairs = 1
    this.offloads = 0n
    this.announceRounds = 0
    this.filter.reset()
    this.filter.setMac(this.limits.mac)
    this.rss.configure(null)
  }

  /** Takes what the driver accepted of the offered bits, after a reset. All guest offloads are on then, and a
   *  driver that can filter VLANs starts with none. */
  negotiate(features: bigint): void {
    this.features = features & this.limits.offered
    this.offloads = guestOffloads(this.features)
    this.filter.allowVlans(!this.has(VIRTIO_NET_F_CTRL_VLAN))
  }

  /** The feature with this number was negotiated. */
  has(bit: number): boolean {
    return has(this.features, bit)
  }

  /**
   * The driver shall announce itself, now and `rounds` times more (0..ANNOUNCE_ROUNDS_MAX); its
   * acknowledgement arms each further round. The owner then tells the driver that the config
   * changed. False: this driver cannot announce itself.
   */
  requestAnnounce(rounds: number): boolean {
    if (!this.has(VIRTIO_NET_F_GUEST_ANNOUNCE)) return false
    this.status |= VIRTIO_NET_S_ANNOUNCE
    this.announceRounds = Math.min(rounds, ANNOUNCE_ROUNDS_MAX)
    return true
  }

  /** For a file or a stream; JSON can carry it. */
  saveState(): SavedState {
    const { filter } = this
    const { config } = this.rss
    return {
      version: SAVED_STATE_VERSION,
      maxPairs: this.limits.maxPairs,
      features: formatHex(this.features),
      deviceStatus: this.deviceStatus,
      status: this.status,
      mac: formatMacBytes(filter.mac),
      pairs: this.pairs,
      offloads: this.has(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) ? formatHex(this.offloads) : null,
      announceRounds: this.announceRounds,
      filter: {
        promisc: filter.promisc,
        allmulti: filter.allmulti,
        alluni: filter.alluni,
        nomulti: filter.nomulti,
        nouni: filter.nouni,
        nobcast: filter.nobcast,
        unicast: filter.unicast.map(formatMacBytes),
        unicastOverflow: filter.unicastOverflow,
        multicast: filter.multicast.map(formatMacBytes),
        multicastOverflow: filter.multicastOverflow,
        vlans: Buffer.from(filter.vlans).toString('hex'),
      },
      rss:
        config === null
          ? null
          : {
              isSteering: config.isSteering,
              hashTypes: config.hashTypes,
              unclassifiedQueue: config.unclassifiedQueue,
              indirectionTable: [...config.indirectionTable],
              hashKey: Buffer.from(config.hashKey).toString('hex'),
            },
    }
  }

  /**
   * Becomes what `saveState` of a device with the same maxPairs saw, or throws a ConfigError
   * (DEVICE_STATE) that names the fault and changes nothing. The owner then applies features, pairs
   * and offloads as if each had changed.
   */
  loadState(saved: unknown): void {
    const parsed = parseSavedState(saved, this.limits)
    const { filter, rss } = this
    this.features = parsed.features
    this.deviceStatus = parsed.deviceStatus
    this.status = parsed.status
    this.pairs = parsed.pairs
    this.offloads = parsed.offloads
    this.announceRounds = parsed.announceRounds
    filter.setMac(parsed.mac)
    Object.assign(filter, parsed.filter.flags)
    filter.setTable(
      parsed.filter.unicastOverflow ? null : parsed.filter.unicast,
      parsed.filter.multicastOverflow ? null : parsed.filter.multicast,
    )
    filter.setVlans(parsed.filter.vlans)
    rss.configure(parsed.rss)
  }
}
