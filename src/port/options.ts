/**
 * What a port can be asked to be. Names and meanings of TAP options are QEMU's NetdevTapOptions
 * (qapi/net.json); those after the blank line are ours. Every field that is absent means "not
 * given", which for some options differs from any value (spec of `script`, `sndbuf`, `vnet_hdr`).
 */
interface CommonOptions {
  /** Unique name of the port: letters, digits, `-`, `.`, `_`; starts with a letter; up to 63. */
  readonly id: string
  /** Largest L3 payload in bytes (68..65535) that may leave by this port; absent: no limit. On a
   *  TAP it is set on the interface as well. */
  readonly mtu?: number
}

interface GroOption {
  /**
   * Merge TCP segments that come in by this port towards ports that take TSO; default on. Without
   * effect while the port's own frames are TSO frames already.
   */
  readonly gro?: boolean
}

export interface TapOptions extends CommonOptions, GroOption {
  readonly type: 'tap'
  readonly ifname?: string
  /** Name given with getfd, or a number. */
  readonly fd?: string
  /** Several, split at ':'. */
  readonly fds?: string
  readonly helper?: string
  readonly br?: string
  /** Path; '' and 'no' mean none. There is no default script. */
  readonly script?: string
  readonly downscript?: string
  /** Bytes; 0 means no limit. */
  readonly sndbuf?: number
  readonly vnet_hdr?: boolean
  readonly vhost?: boolean
  readonly vhostfd?: string
  readonly vhostfds?: string
  readonly vhostforce?: boolean
  /** 1..256 */
  readonly queues?: number
  readonly 'poll-us'?: number

  /** Keep the device when the port closes; absent never clears a flag that is set. */
  readonly persist?: boolean
  /** Network namespace to open it in: a name of `ip netns`, a path, or a pid. */
  readonly netns?: string
  /** User name or uid that may open the device later. */
  readonly owner?: string
  readonly group?: string
  /** Set the interface administratively up (true) or down (false); absent: left alone. */
  readonly up?: boolean
}

export interface PcapOptions extends CommonOptions {
  readonly type: 'pcap'
  /** File whose frames enter the switch. */
  readonly replay?: string
  /** File that records what the switch gives to this port (pcapng, `.pcap` when the name says so). */
  readonly record?: string
  /** `recorded`: at the file's own pace (default); `full`: as fast as the switch takes them. */
  readonly pace?: 'recorded' | 'full'
  /** Times the file is replayed, 1 by default; 0: for ever. */
  readonly loop?: number
}

export interface RawSocketOptions extends CommonOptions, GroOption {
  readonly type: 'raw-socket'
  /** The interface: a network card, a veth, a macvlan, a bridge. Its own settings are left alone. */
  readonly ifname?: string
  /** Network namespace of the interface: a name of `ip netns`, a path, or a pid. */
  readonly netns?: string
  /** A packet socket (SOCK_RAW) that is bound to an interface: name given with getfd, or a number. */
  readonly fd?: string
  /** Queue pairs, 1..64, between which the kernel divides flows (PACKET_FANOUT_HASH); default 1. */
  readonly queues?: number
  /** Also frames to stations other than the interface itself (PACKET_MR_PROMISC); default on. */
  readonly promisc?: boolean
  /** Checksums and segmentation are left to the other side (PACKET_VNET_HDR); default on. */
  readonly vnet_hdr?: boolean
  /** Frames leave past the queueing discipline (PACKET_QDISC_BYPASS); default off. */
  readonly bypass?: boolean
  /** KiB of kernel memory for frames that wait, for each queue, 256..262144; default 16384. A
   *  port has at most 1048576. */
  readonly 'ring-kb'?: number
}

export interface VhostUserOptions extends CommonOptions, GroOption {
  readonly type: 'vhost-user'
  /** Unix socket of the front-end's and ours. */
  readonly path: string
  /** True (default): we listen on the path; false: the front-end does, and we connect. */
  readonly server?: boolean
  /** Queue pairs at most, 1..128; default 1. */
  readonly queues?: number
}

export interface VirtioNetOptions extends CommonOptions, GroOption {
  readonly type: 'virtio-net'
  /** A driver of ours; absent: the program's, by Switch.virtioNetPort. */
  readonly driver?: 'echo' | 'sink' | 'generate'
  /** Queue pairs, 1..16; default 1. */
  readonly queues?: number
}

export interface MemoryOptions extends CommonOptions {
  readonly type: 'memory'
}

export type PortOptions =
  TapOptions | RawSocketOptions | PcapOptions | VhostUserOptions | VirtioNetOptions | MemoryOptions
export type PortType = PortOptions['type']
