/** What each counter counts, grouped: src/stats/README.md is made of it. */
import type { CounterName } from '../src/stats/counters.ts'

export const COUNTER_MEANINGS: Readonly<Record<CounterName, string>> = {
  rx_frames: 'frames that entered the switch by the port',
  rx_bytes: 'their L2 bytes, without vnet_hdr and FCS',
  tx_frames: 'frames that left the switch by the port',
  tx_bytes: 'their L2 bytes, without vnet_hdr and FCS',
  tx_drop_full: 'the queue, ring or socket buffer had no room',
  tx_drop_buffer: "longer than a guest's buffer, and the guest takes no mergeable ones",
  tx_drop_filter: "the receive filter of an in-process device's driver does not want it",
  tx_drop_mtu: "longer than the port's `mtu`",
  tx_drop_link_down: 'link or interface down, or the port has failed',
  tx_drop_offload:
    'needs an offload that the port cannot take, and that cannot be done in software: its headers make no sense, its checksum would be written to a VLAN tag, or its burst has more segments than its limit',
  tx_checksummed:
    'frames whose TCP, UDP or IPv4 checksum was completed, because the port cannot take a partial one',
  tx_segmented:
    'TSO and USO frames, tunnelled or not, that were cut into segments, because the port cannot take them',
  tx_coalesced:
    'segments that became part of the one before them, because the port takes TSO and the sender has none',
  tx_drop_descriptors:
    "the guest's receive buffers take more descriptors than the frames of a turn may cost ([limits](../daemon/README.md#limits))",
  rx_drop_kernel:
    "a raw socket's ring was full when the frame came, or the kernel could not say its offloads",
  tx_drop_malformed: 'the kernel refused frame or vnet_hdr',
  tx_drop_error: 'any other write error',
  rx_drop_malformed:
    'shorter than an Ethernet header, cut off inside its VLAN tag, or a vnet_hdr that contradicts the frame, that has a checksum written where a guard of the port looks, or that the kernel cannot write',
  rx_drop_gso_type: 'unknown gso_type',
  rx_drop_oversize: 'longer than a slot (68 KiB)',
  rx_drop_link_down: 'arrived while the port was down, or by a queue that its guest has disabled',
  rx_drop_same_port: 'destination is on the port it came from',
  rx_drop_source:
    'the source is a multicast address, broadcast or zero; ports on a link pass such frames',
  rx_drop_group_address: '802.1D group address, dropped as configured',
  rx_drop_guard:
    "the port's `guard` does not let it pass: it says that it is from somebody else, or cannot be read; the log has the reason",
  rx_drop_mirror_output: 'the port is the output of a mirror, and takes nothing but copies',
  rx_drop_vlan: 'tagged otherwise than the VLAN options of the port take',
  tx_drop_vlan:
    "for an address at the port, in a VLAN, or with a tag inside, that the port's VLAN options keep in",
  tx_drop_isolated: 'for an address at the port, from another isolated one',
  rx_drop_locked: 'the port is `locked`, and the source is no static entry of it',
  rx_drop_mac_limit:
    'the source was not learnt as the port has `mac-limit` addresses, with `mac-limit-action: drop`',
  rx_drop_mac_moved: 'the source belongs to a `sticky` port',
  rx_drop_storm: 'more frames for everybody than `storm` lets through',
  rx_drop_no_port: 'no other port could be given the frame',
  rx_drop_membership:
    'a message about multicast groups (IGMP, MLD) that is cut off, contradicts itself or has a wrong checksum, with `snooping`',
  rx_drop_no_member:
    'multicast that nobody behind another port wants, and no router, with `snooping`; reports when there is no other router',
}
