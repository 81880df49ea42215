/**
 * Per-port counters: one per reason, in a shared Float64Array (exact to 2^53) that the engine
 * writes and any thread reads by offset. rx = into the switch, tx = out of it.
 * What each counts is said in config/counter-meanings.ts.
 */
export const COUNTERS = {
  rx_frames: 0,
  rx_bytes: 1,
  tx_frames: 2,
  tx_bytes: 3,
  tx_drop_full: 4,
  tx_drop_mtu: 5,
  tx_drop_link_down: 6,
  tx_drop_offload: 7,
  tx_drop_malformed: 8,
  tx_drop_error: 9,
  rx_drop_malformed: 10,
  rx_drop_gso_type: 11,
  rx_drop_oversize: 12,
  rx_drop_link_down: 13,
  rx_drop_same_port: 14,
  rx_drop_group_address: 15,
  rx_drop_no_port: 16,
  tx_drop_buffer: 17,
  tx_drop_filter: 18,
  tx_checksummed: 19,
  tx_segmented: 20,
  tx_coalesced: 21,
  rx_drop_source: 22,
  tx_drop_descriptors: 23,
  rx_drop_kernel: 24,
  rx_drop_mirror_output: 25,
  rx_drop_vlan: 26,
  tx_drop_vlan: 27,
  tx_drop_isolated: 28,
  rx_drop_locked: 29,
  rx_drop_mac_limit: 30,
  rx_drop_mac_moved: 31,
  rx_drop_storm: 32,
  rx_drop_guard: 33,
  rx_drop_membership: 34,
  rx_drop_no_member: 35,
} as const

export type CounterName = keyof typeof COUNTERS

/** Float64 cells reserved per port. */
export const COUNTERS_STRIDE = 64

export const COUNTER_NAMES: readonly CounterName[] = Object.keys(COUNTERS) as CounterName[]
