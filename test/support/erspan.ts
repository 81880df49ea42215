/** A host with a daemon, and another one that its mirrors send to; what arrives there, as tshark reads it. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { CLI, Daemon, IFNAME, IO, Lab, tapSpec } from './lab.ts'
import { sh, words } from './processes.ts'
import { Watch } from './watch.ts'

export const HOST = '192.0.2.1'
export const ANALYSER = '192.0.2.2'
export const HOST_IPV6 = '2001:db8::1'
export const ANALYSER_IPV6 = '2001:db8::2'
const LINK = 'e0'

export interface Hosts {
  readonly daemon: Daemon
  /** Behind ports p0, p1 ... */
  readonly netns: readonly string[]
  readonly host: string
  readonly analyser: string
}

/** `options`: of the TAPs of the daemon, whose host has an interface e0 to the analyser. */
export async function startHosts(
  lab: Lab,
  options: readonly string[],
  ...more: string[]
): Promise<Hosts> {
  const [host, analyser] = [lab.netns(), lab.netns()]
  sh('ip', '-n', host, ...words(`link add ${LINK} type veth peer name ${LINK} netns ${analyser}`))
  for (const [name, address, ipv6] of [
    [host, HOST, HOST_IPV6],
    [analyser, ANALYSER, ANALYSER_IPV6],
  ]) {
    lab.exec(name, 'sh', '-c', `echo 0 >/proc/sys/net/ipv6/conf/${LINK}/disable_ipv6`)
    sh('ip', '-n', name, ...words(`addr add ${ipv6}/64 dev ${LINK} nodad`))
    lab.address(name, address, LINK)
  }
  const netns = options.map(() => lab.netns())
  const specs = netns.flatMap((name, k) => ['--port', tapSpec(k, name, options[k])])
  const control = ['--control', lab.controlPath()]
  const args = [CLI, 'run', '--io', IO, ...control, ...specs, ...more]
  const background = lab.start(host, process.execPath, ...args)
  const daemon = new Daemon(await lab.ready(background), background)
  await daemon.connect()
  for (const name of netns) sh('ip', '-n', name, 'link', 'set', IFNAME, 'up')
  return { daemon, netns, host, analyser }
}

export function setMtu(netns: string, mtu: number): void {
  sh('ip', '-n', netns, 'link', 'set', LINK, 'mtu', String(mtu))
}

export function setUp(netns: string, isUp: boolean): void {
  sh('ip', '-n', netns, 'link', 'set', LINK, isUp ? 'up' : 'down')
}

/**
 * What the analyser is sent by GRE, up to so many, or until that holds of it: whole frames in hex, that of e0 included.
 * `timeoutMs`: some of them may never come.
 */
export async function seen(
  lab: Lab,
  { analyser }: Hosts,
  action: () => Promise<unknown>,
  isOver: number | ((frames: readonly string[]) => boolean),
  timeoutMs?: number,
): Promise<string[]> {
  const watch = await Watch.start(lab, analyser, { ifname: LINK, only: isGre })
  await action()
  if (typeof isOver === 'number') return watch.count(isOver, timeoutMs)
  return watch.upTo(isOver, timeoutMs)
}

const isGre = (hex: string): boolean =>
  (hex.startsWith('0800', 24) && hex.startsWith('2f', 46)) ||
  (hex.startsWith('86dd', 24) && hex.startsWith('2f', 40))

/** Fields of these frames, by tshark: a row each, of the outermost layer that has them. */
export function dissect(
  lab: Lab,
  frames: readonly string[],
  fields: readonly string[],
  ...more: string[]
): string[][] {
  const file = join(lab.directory, 'seen.pcap')
  const header = Buffer.alloc(24)
  header.writeUInt32LE(0xa1b2c3d4, 0)
  header.writeUInt16LE(2, 4)
  header.writeUInt16LE(4, 6)
  header.writeUInt32LE(262_144, 16)
  header.writeUInt32LE(1, 20)
  const records = frames.flatMap((hex) => {
    const bytes = Buffer.from(hex, 'hex')
    const record = Buffer.alloc(16)
    record.writeUInt32LE(bytes.length, 8)
    record.writeUInt32LE(bytes.length, 12)
    return [record, bytes]
  })
  writeFileSync(file, Buffer.concat([header, ...records]))
  const asked = fields.flatMap((field) => ['-e', field])
  const output = sh('tshark', '-r', file, '-T', 'fields', '-E', 'occurrence=f', ...more, ...asked)
  const rows = output.split('\n').slice(0, -1)
  return rows.map((row) => row.split('\t'))
}
