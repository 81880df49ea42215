/** Which options of a port change while it runs. All others are what it is made with. */
import { isDeepStrictEqual } from 'node:util'
import type { PortOptions, PortType } from './options.ts'

const IN_PLACE: Readonly<Record<PortType, readonly string[]>> = {
  // Set on the open device; the down-script is looked for at its end.
  tap: ['mtu', 'gro', 'up', 'sndbuf', 'persist', 'owner', 'group', 'downscript'],
  // The interface is not ours; these are the socket's.
  'raw-socket': ['mtu', 'gro', 'promisc', 'bypass'],
  'vhost-user': ['mtu', 'gro'],
  // VIRTIO 1.3 §5.1.4.1: the device must not modify its mtu.
  'virtio-net': ['gro'],
  pcap: ['mtu', 'pace', 'loop'],
  memory: ['mtu'],
}

/** The names of the options that differ; null: the port must be made anew for one of them. */
export function changedInPlace(before: PortOptions, after: PortOptions): string[] | null {
  if (before.type !== after.type || before.id !== after.id) return null
  const [old, wanted] = [before, after] as unknown as Record<string, unknown>[]
  const keys = [...new Set([...Object.keys(old), ...Object.keys(wanted)])].filter(
    (key) => !isDeepStrictEqual(old[key], wanted[key]),
  )
  return keys.every((key) => IN_PLACE[before.type].includes(key)) ? keys : null
}
