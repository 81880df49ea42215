/**
 * Veth pairs for raw socket ports: the switch has the interfaces u0, u1 ... of one namespace, and at the
 * other end of each there is a host that has x0.
 *
 *     [host 0] x0 === u0 [uplink: raw-socket ports p0, p1 ...] u1 === x0 [host 1]
 */
import type { Daemon } from './lab.ts'
import { IFNAME, Lab } from './lab.ts'
import { sh } from './processes.ts'

const ALL_OFFLOADS = ['rx', 'tx', 'sg', 'tso', 'gso', 'gro']

export interface RawStar {
  readonly daemon: Daemon
  /** Where the interfaces of the switch are. */
  readonly uplink: string
  readonly hosts: readonly string[]
}

/** The switch's end of host k. */
export const uplinkName = (k: number): string => `u${k}`

/** The option string of port k. */
export function rawSpec(k: number, netns: string, options = ''): string {
  const more = options === '' ? '' : `,${options}`
  return `raw-socket,id=p${k},ifname=${uplinkName(k)},netns=${netns}${more}`
}

/** A pair between two namespaces, both ends of which are up. */
export function addPair(uplink: string, ifname: string, host: string, far = IFNAME): void {
  const pair = ['type', 'veth', 'peer', 'name', far, 'netns', host]
  sh('ip', '-n', uplink, 'link', 'add', ifname, 'numtxqueues', '4', 'numrxqueues', '4', ...pair)
  sh('ip', '-n', uplink, 'link', 'set', ifname, 'up')
  sh('ip', '-n', host, 'link', 'set', far, 'up')
}

/** So many hosts at interfaces that no port has yet. */
export function addHosts(lab: Lab, count: number): { uplink: string; hosts: string[] } {
  const uplink = lab.netns()
  const hosts = Array.from({ length: count }, () => lab.netns())
  hosts.forEach((host, k) => addPair(uplink, uplinkName(k), host))
  return { uplink, hosts }
}

/** How many want all frames of the switch's two ends. */
export function promiscuity(uplink: string): string[] {
  return [0, 1].map((k) => {
    const shown = sh('ip', '-n', uplink, '-d', 'link', 'show', uplinkName(k))
    return / promiscuity (\d+)/.exec(shown)![1]
  })
}

/** Addresses 10.0.0.1, fd00::1 and so on. */
export function addAddresses(lab: Lab, hosts: readonly string[], first = 1): void {
  for (const [k, host] of hosts.entries()) {
    lab.exec(host, 'sh', '-c', `echo 0 > /proc/sys/net/ipv6/conf/${IFNAME}/disable_ipv6`)
    sh('ip', '-n', host, 'addr', 'add', `10.0.0.${first + k}/24`, 'dev', IFNAME)
    sh('ip', '-n', host, 'addr', 'add', `fd00::${first + k}/64`, 'dev', IFNAME, 'nodad')
  }
}

/** A switch with so many hosts, each at a port with these options. */
export async function rawStar(lab: Lab, count: number, ...options: string[]): Promise<RawStar> {
  const { uplink, hosts } = addHosts(lab, count)
  const specs = hosts.flatMap((_, k) => ['--port', rawSpec(k, uplink, options[k] ?? options[0])])
  return { daemon: await lab.daemon(...specs), uplink, hosts }
}

/** Whoever sends by the interface does all by himself; `features`: of these only. */
export function withoutOffloads(
  lab: Lab,
  netns: string,
  ifname: string,
  features: readonly string[] = ALL_OFFLOADS,
): void {
  lab.exec(netns, 'ethtool', '-K', ifname, ...features.flatMap((name) => [name, 'off']))
}

export const setLink = (netns: string, ifname: string, ...what: string[]): string =>
  sh('ip', '-n', netns, 'link', 'set', ifname, ...what)
