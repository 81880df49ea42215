/**
 * Per-port counters: one per reason, in a shared Float64Array (exact to 2^53) that the engine
 * writes and any thread reads by offset. rx = into the switch, tx = out of it.
 */
export const COUNTERS = {
  /** Frames that entered the switch by this port. */
  rx_frames: 0,
  /** L2 bytes of them. */
  rx_bytes: 1,
  /** Frames that left by this port. */
  tx_frames: 2,
  tx_bytes: 3,
  /** The queue, ring or socket buffer behind the port had no room. */
  tx_drop_full: 4,
  /** Longer than the port's mtu allows. */
  tx_drop_mtu: 5,
  /** The link or the interface is down. */
  tx_drop_link_down: 6,
  /** The port cannot take its offload, and it cannot be done in software: its headers make no sense. */
  tx_drop_offload: 7,
  /** The kernel refused the frame or its vnet_hdr (EINVAL). */
  tx_drop_malformed: 8,
  /** Any other write error. */
  tx_drop_error: 9,
  /** Shorter than an Ethernet header, or a vnet_hdr that contradicts the frame. */
  rx_drop_malformed: 10,
  /** vnet_hdr with a gso_type that nobody defined. */
  rx_drop_gso_type: 11,
  /** Filled its slot: longer than 64 KiB plus headers, so its end was cut off. */
  rx_drop_oversize: 12,
  /** Arrived while the port was down, or by a queue that its guest has disabled. */
  rx_drop_link_down: 13,
  /** Destination is on the port the frame came from. */
  rx_drop_same_port: 14,
  /** 802.1D group address, with `group-addresses: 802.1D`. */
  rx_drop_group_address: 15,
  /** No other port could be given the frame. */
  rx_drop_no_port: 16,
  /** Longer than the guest's receive buffer, and it takes no merged ones. */
  tx_drop_buffer: 17,
  /** The driver of an in-process device filters it out. */
  tx_drop_filter: 18,
  /** Frames whose TCP, UDP or IPv4 checksum was completed for this port. */
  tx_checksummed: 19,
  /** TSO and USO frames that were cut into segments for it. */
  tx_segmented: 20,
  /** Segments that became part of the one before them for it. */
  tx_coalesced: 21,
  /** Source is a group address or zero: no station sends so, and a bridge drops it. */
  rx_drop_source: 22,
  /** The guest's receive buffers take more descriptors than a turn's frames may cost. */
  tx_drop_descriptors: 23,
  /** A raw socket's ring was full when the frame came, or the kernel could not say its offloads. */
  rx_drop_kernel: 24,
} as const

export type CounterName = keyof typeof COUNTERS

/** Float64 cells reserved per port. */
export const COUNTERS_STRIDE = 32

export const COUNTER_NAMES: readonly CounterName[] = Object.keys(COUNTERS) as CounterName[]
