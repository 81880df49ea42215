/**
 * The types of the public API: what createSwitch() takes and returns. The daemon, the control
 * socket and the CLI use the switch through these only.
 */
import type { EventEmitter } from 'node:events'
import type { Capture, CaptureInfo, CaptureOptions, CaptureSummary } from '../capture/options.ts'
import type { SwitchCounters } from '../engine/client.ts'
import type { Pace } from '../engine/messages.ts'
import type { IoTierName } from '../io/tier.ts'
import type { MemoryPort, VirtioNetPort } from '../port/api.ts'
import type { ErspanOptions } from '../port/erspan-options.ts'
import type { DescriptorKeeper } from '../port/keeper.ts'
import type { CounterName } from '../stats/counters.ts'
import type { PortOptions, PortType } from '../port/options.ts'
import type { HandedSwitch, HandOverOptions, HandOverOutline } from './handed.ts'
import type { SwitchingOptions } from '../port/switching-options.ts'

export type { ErspanOptions } from '../port/erspan-options.ts'
export type { HandedState, JsonValue } from '../port/handed.ts'
export type {
  HandedCapture,
  HandedPort,
  PreviewedPort,
  HandedSwitch,
  HandOverOptions,
  HandOverOutline,
  OutlinedPort,
} from './handed.ts'
export type {
  Capture,
  CaptureDirection,
  CaptureFormat,
  CaptureInfo,
  CaptureOptions,
  CaptureSummary,
} from '../capture/options.ts'
export type { SwitchCounters } from '../engine/client.ts'
export type { Pace } from '../engine/messages.ts'
export type { IoTierName } from '../io/tier.ts'
export type { DescriptorKeeper } from '../port/keeper.ts'
export type { MemoryPort, VirtioNetConfig, VirtioNetFrame, VirtioNetPort } from '../port/api.ts'

/** QEMU's RunState words. */
export type RunState = 'inmigrate' | 'running' | 'paused' | 'postmigrate' | 'shutdown'
/**
 * 802.1D group addresses 01-80-C2-00-00-00..0F: forward them like any multicast, drop them, or forward those with
 * these last octets, as `0e`.
 */
export type GroupAddresses = 'transparent' | '802.1D' | readonly (string | number)[]

/** What can change while the switch runs. */
export interface SwitchSettings {
  readonly pace?: Pace
  /** Seconds without a frame after which a MAC entry goes; 1..1000000; default 300. */
  readonly macAgingS?: number
  readonly groupAddresses?: GroupAddresses
  /** Multicast goes to those ports only whose hosts want it. Default: it is flooded. */
  readonly snooping?: SnoopingOptions
}

/** Which messages about multicast groups are heeded (RFC 4541), and how much is remembered. */
export interface SnoopingOptions {
  /** IGMP, for IPv4; default false. */
  readonly igmp?: boolean
  /** MLD, for IPv6; default false. */
  readonly mld?: boolean
  /** Groups that are known, 16..65536; default 2048. */
  readonly maxGroups?: number
  /** Of them those that one port is a member of, 1..65536; default 256. A port that wants more is given all multicast. */
  readonly maxGroupsPerPort?: number
}

export interface SwitchOptions extends SwitchSettings {
  /** Default `auto`: the faster of the tiers that this machine offers, by measurement. */
  readonly io?: 'auto' | IoTierName
  /** Entries of the MAC table, 16..1048576; default 8192. */
  readonly macTableSize?: number
  /** Where what must survive a restart is kept: features that guests acked. Absent: nowhere. */
  readonly stateDirectory?: string
  /** Keeps the descriptors of TAPs for a process that comes after this one. Absent: nobody does. */
  readonly keeper?: DescriptorKeeper
  /**
   * Started to take over from another instance: ports that it may still own are postponed until
   * migrateIncoming(), and nothing is forwarded before resume(). Run state `inmigrate` until then.
   */
  readonly incoming?: boolean
}

/** Of the interface of a TAP or a raw socket: `down` as `ip link set ... down` has it; `no-carrier`: up, without one. */
export type DeviceState = 'up' | 'down' | 'no-carrier'

/**
 * `postponed`: not touched yet, another instance may own it. `down`: by set_link, or its interface was
 * up and is down now or has no carrier; one that nobody has set up yet is `open`, see `device`.
 * `connected` and `disconnected`: whether a guest's rings run.
 */
export type PortState = 'postponed' | 'open' | 'connected' | 'disconnected' | 'down' | 'failed'

/** Names of offloads, as ethtool-like words; `csum` gates the rest. */
export type OffloadName =
  'csum' | 'tso4' | 'tso6' | 'ecn' | 'ufo' | 'uso4' | 'uso6' | 'udp-tunnel' | 'udp-tunnel-csum'

export type Counters = Readonly<Record<CounterName, number>>

/** What the kernel dropped at an interface since the port was opened; rx is into the switch. */
export interface KernelCounters {
  /** Frames for the switch that found the interface's queue full. */
  readonly rx_kernel_dropped: number
  /** Frames that left by the port, which the kernel had no room or no protocol for. */
  readonly tx_kernel_dropped: number
}

export interface PortInfo {
  readonly id: string
  readonly type: PortType
  readonly state: PortState
  /** Why the port failed, or why a postponed one could not be opened. */
  readonly error?: string
  /** Of a postponed port: what it is going to be. */
  readonly info?: string
  /** Of a port that was added in `inmigrate`: why it was opened at once. */
  readonly notPostponed?: string
  /** Current name of the interface, as the kernel tells it (it may have been renamed). */
  readonly ifname?: string
  /** Namespace the device lives in: name or path when known, else `net:[inode]`. */
  readonly netns?: string
  /** File of a pcap port, socket of a vhost-user port. */
  readonly path?: string
  /** Of a TAP or a raw socket: state of the interface. */
  readonly device?: DeviceState
  /** Its MTU, as the kernel told it last. */
  readonly deviceMtu?: number
  readonly queues: number
  /** How many of a TAP's queues are attached, when its guest does not use all of them. */
  readonly queuesAttached?: number
  /** rx: what the port may hand to the switch; tx: what it can be given. */
  readonly offloads: { readonly rx: readonly OffloadName[]; readonly tx: readonly OffloadName[] }
  /** TCP segments that come in by it are merged for ports that take TSO: it has none itself. */
  readonly gro: boolean
  /** vnet_hdr bytes before each frame; 0: none. */
  readonly vnetHdrLength: number
  /** Administrative link state (set_link). */
  readonly link: boolean
  /** It waits for others that were listed with it, or for its link: nothing enters or leaves by it. */
  readonly held?: true
  readonly mtu?: number
  /** The port it is wired to; absent: it is on the switch. */
  readonly peer?: string
  /** Options that say how it takes part in the switch, as they are given. */
  readonly switching: SwitchingOptions
  readonly counters: Counters
}

export interface MacEntry {
  /** `52:54:00:12:34:56` */
  readonly mac: string
  /** VID; 0: none. */
  readonly vlan: number
  readonly port: string
  /** Seconds since a frame with this source was seen; 0 of a static one. */
  readonly ageS: number
  /** It was not learnt: it does not age and does not move. */
  readonly static?: true
}

/** A port that is a member of a multicast group, or has multicast routers. */
export interface GroupEntry {
  /** VID; 0: none. */
  readonly vlan: number
  /** VID of the tag inside that of the VLAN; absent: there is none. */
  readonly innerVlan?: number
  readonly family: 'ipv4' | 'ipv6'
  /** `239.1.2.3`, `ff15::1`; absent: the port has routers, and is given all groups. */
  readonly group?: string
  readonly port: string
  /** Seconds after which that ends unless it is heard again; absent: it does not end. */
  readonly expiresS?: number
  /** Address of the querier, if it is there. */
  readonly querier?: string
  /** The option of the port, if it says that: with `never` it is given no groups, though the querier is there. */
  readonly multicastRouter?: 'always' | 'never'
}

/** Members of multicast groups and ports with routers, as snooping knows them. */
export interface MulticastGroups {
  list(): Promise<GroupEntry[]>
  /** The same in parts, read one after another: other requests and frames come in between. */
  pages(): AsyncIterable<readonly GroupEntry[]>
  flush(which?: GroupFlush): Promise<void>
}

/** Which memberships are forgotten; default: all, routers too. Until the next query the rest is flooded. */
export interface GroupFlush {
  readonly port?: string
  readonly vlan?: number
}

/** A static entry of the forwarding database: it does not age or move, and wins over what is learnt. */
export interface FdbEntry {
  readonly mac: string
  /** VID; default 0: of frames without one. */
  readonly vlan?: number
  readonly port: string
}

/** Static entries, as they are added by hand; those that ports have by their options are not among them. */
export interface Fdb {
  list(): FdbEntry[]
  /**
   * Those that are there already stay. All of them, or none: throws FDB_ENTRY when one of the addresses is
   * static elsewhere, FDB_FULL when there is no room.
   */
  add(entries: readonly FdbEntry[]): Promise<void>
  /** Throws FDB_ENTRY when one of them is not there. */
  remove(entries: readonly Omit<FdbEntry, 'port'>[]): Promise<void>
  flush(which?: FdbFlush): Promise<void>
}

/** Which entries are forgotten; default: all that were learnt. */
export interface FdbFlush {
  readonly port?: string
  readonly vlan?: number
  /** Static ones, too, but for those that a port has by its options. */
  readonly all?: boolean
}

/** Ports that carry a VLAN, by how its frames leave by them. */
export interface VlanInfo {
  /** 0: frames without a VLAN. */
  readonly vlan: number
  readonly tagged: readonly string[]
  readonly untagged: readonly string[]
}

/**
 * Copies of the frames that enter or leave by some ports, for another port, which then takes nothing else, into
 * a VLAN, or for another host. Either all ports are selected, or those that are named; there is one output.
 */
export interface MirrorOptions {
  readonly name: string
  readonly selectAll?: boolean
  /** Ports of which the frames are copied that enter the switch by them, as they came. */
  readonly selectSrcPort?: readonly string[]
  /** Ports of which the frames are copied that leave the switch by them. */
  readonly selectDstPort?: readonly string[]
  /** VLANs and ranges of them, as `10` and `20-30`; 0: what is of none. Absent: all. */
  readonly selectVlan?: readonly (string | number)[]
  readonly outputPort?: string
  /** 1..4094: all ports that carry the VLAN have the copies, which are of it. Nothing is learnt in it. */
  readonly outputVlan?: number
  /** The copies go to another host, by GRE. Its numbers tell it of lost ones. */
  readonly erspan?: ErspanOptions
  /**
   * Of what is selected only this is copied: an expression of pcap-filter(7), for which a process is started that
   * has libpcap. It looks at frames as their copies are, with their tags, before they are cut.
   */
  readonly filter?: string
  /** The same as a program, as `tcpdump -ddd` prints it, or with commas; with it `filter` is a text to be shown. */
  readonly filterProgram?: string
  /** L2 bytes of a copy, at most; 14..65535; absent: all. */
  readonly snapLength?: number
}

export interface MirrorInfo {
  readonly options: MirrorOptions
  /** Ports that it names and that are not there. */
  readonly missing: readonly string[]
  /** Frames that it has selected, and their L2 bytes: what became of the copies its output counts. */
  readonly frames: number
  readonly bytes: number
  /** Of `erspan`, which is no port that could tell them: what was sent, and what was not. */
  readonly counters?: Partial<Record<CounterName, number>>
}

/** Ports that seem to be connected outside the switch as well. */
export interface LoopInfo {
  /** An address that keeps moving between them. */
  readonly mac: string
  /** Two or more. */
  readonly ports: readonly string[]
  /** How often it and others moved in the second before. */
  readonly moves: number
}

export interface SwitchEvents {
  'port-added': [info: PortInfo]
  'port-removed': [id: string]
  'port-changed': [info: PortInfo]
  /** Once, again when more ports turn out to be on it, or when it has been quiet for a minute. */
  'loop-detected': [loop: LoopInfo]
  /** It was stopped, is complete, or could not go on. */
  'capture-ended': [id: number, summary: CaptureSummary]
  /** The data plane died; the switch is closed. */
  'engine-failed': [error: Error]
}

export interface AddPortSettings {
  /**
   * A port that what is stored of its guest stands in the way of is added all the same, `failed`,
   * with the reason; default: VHOST_USER_ACKED is thrown.
   */
  readonly keepsUnusable?: boolean
  /** Nothing enters or leaves by it before `release`; see Switch.hold. */
  readonly isHeld?: boolean
  /** A port that it is wired to before it has its first frame. */
  readonly peer?: string
}

export interface Switch extends AsyncDisposable {
  readonly events: EventEmitter<SwitchEvents>
  readonly runState: RunState
  readonly io: IoTierName
  /** Why `auto` took `read-write`; absent: it did not, or the tier was forced. */
  readonly ioReason?: string
  /** Static entries of the forwarding database. */
  readonly fdb: Fdb
  /** What snooping knows. */
  readonly groups: MulticastGroups
  /**
   * Opens the port and puts it on the switch. `given` are descriptors by name (fd=, fds=), which are
   * the port's when this resolves.
   */
  addPort(
    options: PortOptions,
    given?: ReadonlyMap<string, number>,
    settings?: AddPortSettings,
  ): Promise<PortInfo>
  /**
   * Other options for a port that goes on: guests, addresses, queues and descriptors stay. Throws
   * BAD_OPTION when one differs that the port is made with; those that do not are mtu (but of
   * virtio-net), gro, how it takes part in the switch (SwitchingOptions), a TAP's up, sndbuf, persist, owner, group and downscript, a raw socket's promisc and
   * bypass, a replay's pace and loop.
   */
  changePort(options: PortOptions): Promise<void>
  /** From now on; what is absent has its default. */
  configure(settings: SwitchSettings): Promise<void>
  /** Ends all access to the port, forgets its MACs, closes it. */
  removePort(id: string): Promise<void>
  setLink(id: string, up: boolean): Promise<void>
  /** Wires two ports queue to queue; they leave the switch. */
  addLink(a: string, b: string): Promise<void>
  removeLink(a: string, b: string): Promise<void>
  /**
   * From now on nothing enters or leaves by these ports and their peers: what is sent to the switch
   * through them waits in their queues. For several changes of which none shall be met half-made.
   */
  hold(ids: readonly string[]): Promise<void>
  /** Lets go of these ports and their peers, or of all, in the same moment. */
  release(ids?: readonly string[]): Promise<void>
  /**
   * Its ports must be there, but with `mayLack`. It stays when they go, and has them when they come, before their
   * first frame.
   */
  addMirror(options: MirrorOptions, mayLack?: boolean): Promise<void>
  removeMirror(name: string): Promise<void>
  mirrors(): MirrorInfo[]
  ports(): PortInfo[]
  port(id: string): PortInfo
  /** Undefined: there is no interface behind the port, or the kernel does not tell. */
  kernelCounters(id: string): KernelCounters | undefined
  memoryPort(id: string): MemoryPort
  /** The driver's side of an in-process device. */
  virtioNetPort(id: string): VirtioNetPort
  links(): [string, string][]
  /** The VLANs that options of ports name, and 0; by VID. */
  vlans(): VlanInfo[]
  macTable(): Promise<MacEntry[]>
  /** The same in parts, read one after another: other requests and frames come in between. */
  macTablePages(): AsyncIterable<readonly MacEntry[]>
  /** As the engine published them last: now and then while frames pass. */
  counters(): SwitchCounters
  /** As they are now, also when the engine sleeps. */
  currentCounters(): Promise<SwitchCounters>
  /**
   * Stops reading; everything already read is delivered; frames then wait in the kernel. After migrateIncoming() it
   * ends `inmigrate` as well; before that it does nothing.
   */
  pause(): Promise<void>
  /**
   * Goes on; ends `inmigrate`, for which migrateIncoming() must have been called: what has been
   * postponed since is opened first, all of it or none. `reading` is told when frames were read again, in
   * microseconds of CLOCK_MONOTONIC, as soon as that is known.
   */
  resume(reading?: (atUs: number) => void): Promise<void>
  /**
   * The pre-incoming point: what has been postponed is opened, in the order in which it was added.
   * At the first failure all of it is postponed again, and the call can be repeated.
   */
  migrateIncoming(): Promise<void>
  /**
   * What `handOver` would hand over, while frames pass. Ports that are left out (`excluded`) are not handed
   * over, but closed, and opened by whoever takes over. Throws HAND_OVER, naming the port, when one cannot be
   * handed over or not be left out.
   */
  outlineHandOver(excluded?: readonly string[]): Promise<HandOverOutline>
  /**
   * What whoever takes over can have while frames still pass (`prepareTakeOver`), so that the pause is short. The
   * descriptors stay this switch's.
   */
  previewHandOver(excluded?: readonly string[]): Promise<HandedSwitch>
  /**
   * Pauses; when all that was read is delivered, gives what another process needs to go on (`takeOver`). The
   * descriptors stay this switch's. Changes of the switch wait until `takeBack` or `handedOver` is called.
   */
  handOver(excluded?: readonly string[], options?: HandOverOptions): Promise<HandedSwitch>
  /** Goes on exactly where it was: nothing is lost, as frames have waited in their queues. */
  takeBack(): Promise<void>
  /**
   * Another process has it all from now on: this switch never reads again, leaves devices as they are, and
   * has no ports any more. Run state `postmigrate`. What is left of them is closed once `settled` is.
   */
  handedOver(settled?: Promise<unknown>): Promise<void>
  /**
   * Of a switch made with `incoming`, before `takeOver`: does what takes time while the other one still
   * forwards. Its ports are there, `postponed`; those of a preview are taken over already, as by `takeOver`.
   * Resolves with which these are: one that could not be is no error yet.
   */
  prepareTakeOver(outline: HandOverOutline, preview?: HandedSwitch): Promise<string[]>
  /** What the other one's `rehearse` is called with: resolves when this one is ready again. */
  rehearseTakeOver(handed: HandedSwitch): Promise<void>
  /** Lets go of what was taken over by a preview: those ports are `postponed` again. */
  dropPreview(): Promise<void>
  /**
   * Of a switch made with `incoming`: takes over what another one has handed over. The descriptors become
   * this switch's; each is checked against what was said of it. On failure, HAND_OVER, they are closed. Nothing is
   * opened but what was left out, nothing set, and nothing read before `resume`, or `pause` to go on paused.
   */
  takeOver(handed: HandedSwitch): Promise<void>
  startCapture(options: CaptureOptions): Promise<Capture>
  /** Those that run, as they are now. */
  captures(): CaptureInfo[]
  /** One of them, whoever has started it. */
  capture(id: number): Capture
  close(): Promise<void>
}
