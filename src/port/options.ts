/**
 * The options of all kinds of ports, by their public names: what the library takes. What each of them may
 * be is said in its kind's folder. Every field that is absent means "not given", which for some options
 * differs from any value.
 */
import type { MemoryOptions } from './memory/options.ts'
import type { PcapOptions } from './pcap/options.ts'
import type { RawSocketOptions } from './raw-socket/options.ts'
import type { TapOptions } from './tap/options.ts'
import type { VhostUserOptions } from './vhost-user/options.ts'
import type { VirtioNetOptions } from './virtio-net/options.ts'

export type {
  MemoryOptions,
  PcapOptions,
  RawSocketOptions,
  TapOptions,
  VhostUserOptions,
  VirtioNetOptions,
}

export type PortOptions =
  TapOptions | RawSocketOptions | PcapOptions | VhostUserOptions | VirtioNetOptions | MemoryOptions
export type PortType = PortOptions['type']
