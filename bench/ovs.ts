/** Open vSwitch as a peer: a private instance on CPU 0, with a learning bridge in its userspace datapath. */
import type { ChildProcess } from 'node:child_process'
import { spawn } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { addNetns, end, reach, sh, sleep, STARTING_LOOKS_MAX, tcp } from './topology.ts'

export const OVS_DPDK = '/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk'
const OVS = '/usr/lib/openvswitch-switch/ovs-vswitchd'

/** All processes are in `netns`, when one is named. */
export class Ovs {
  readonly #directory: string
  readonly #socket: string
  readonly #inNetns: readonly string[]
  readonly #processes: ChildProcess[] = []

  private constructor(directory: string, netns: string | undefined) {
    this.#directory = directory
    this.#socket = `unix:${join(directory, 'db.sock')}`
    this.#inNetns = netns === undefined ? [] : ['ip', 'netns', 'exec', netns]
  }

  /** `config` is other_config. The bridge is `br0`. */
  static async start(
    directory: string,
    program: string,
    config: readonly string[],
    netns?: string,
  ): Promise<Ovs> {
    const ovs = new Ovs(directory, netns)
    try {
      await ovs.#start(program, config)
      return ovs
    } catch (error) {
      await ovs.close()
      throw error
    }
  }

  async #start(program: string, config: readonly string[]): Promise<void> {
    const database = join(this.#directory, 'conf.db')
    rmSync(database, { force: true })
    sh('ovsdb-tool', 'create', database, '/usr/share/openvswitch/vswitch.ovsschema')
    this.#spawn('ovsdb-server', database, `--remote=p${this.#socket}`)
    for (let tries = 0; ; tries++) {
      try {
        this.vsctl('--no-wait', 'init')
        break
      } catch (error) {
        if (tries > STARTING_LOOKS_MAX) throw error
        await sleep(20)
      }
    }
    for (const item of config) {
      this.vsctl('--no-wait', 'set', 'Open_vSwitch', '.', `other_config:${item}`)
    }
    this.#spawn(program, this.#socket)
    this.vsctl('add-br', 'br0', '--', 'set', 'bridge', 'br0', 'datapath_type=netdev')
  }

  #spawn(program: string, ...args: string[]): void {
    const own = this.#directory
    const env = { ...process.env, OVS_RUNDIR: own, OVS_DBDIR: own, OVS_LOGDIR: own }
    const command = [...this.#inNetns, 'taskset', '-c', '0', program, ...args]
    this.#processes.push(spawn(command[0], command.slice(1), { env, stdio: 'ignore' }))
  }

  /** Of the switch itself, not of its database. */
  get pid(): number {
    return this.#processes.at(-1)!.pid!
  }

  vsctl(...args: string[]): string {
    return sh('ovs-vsctl', `--db=${this.#socket}`, ...args)
  }

  addPort(name: string, ...settings: string[]): void {
    this.vsctl('add-port', 'br0', name, '--', 'set', 'interface', name, ...settings)
  }

  async close(): Promise<void> {
    for (const child of this.#processes.toReversed()) await end(child, () => child.kill('SIGTERM'))
  }
}

/**
 * One TCP stream between a veth with offloads, which the bridge reads by AF_PACKET, and an internal
 * port (a TAP) without: as Open vSwitch comes, userspace-tso-enable is off. Gbit/s; 0: no connection.
 */
export async function ovsMixedTcp(isToPlain: boolean, seconds: number): Promise<number> {
  const directory = `/tmp/framepump-bench-${process.pid}-ovs`
  const [offloading, plain, between] = ['a', 'b', 's'].map((name) => `fpb${process.pid}${name}`)
  mkdirSync(directory, { recursive: true })
  let ovs: Ovs | undefined
  try {
    for (const name of [offloading, plain, between]) addNetns(name)
    ovs = await Ovs.start(directory, OVS, [], between)
    sh('ip', '-n', between, ...'link add veth0 type veth peer name x0 netns'.split(' '), offloading)
    sh('ip', '-n', between, 'link', 'set', 'veth0', 'up')
    ovs.addPort('veth0', 'type=system')
    ovs.addPort('tap0', 'type=internal')
    sh('ip', '-n', between, 'link', 'set', 'tap0', 'netns', plain, 'name', 'x0')
    const ends = isToPlain ? [offloading, plain] : [plain, offloading]
    ends.forEach((name, k) => {
      sh('ip', '-n', name, 'addr', 'add', `10.0.0.${k + 1}/24`, 'dev', 'x0')
      sh('ip', '-n', name, 'link', 'set', 'x0', 'up')
    })
    reach(ends[0], '10.0.0.2')
    return (await tcp([ends[0], ends[1]], seconds)) ?? 0
  } finally {
    await ovs?.close()
    for (const name of [offloading, plain, between]) sh('ip', 'netns', 'del', name)
    rmSync(directory, { recursive: true, force: true })
  }
}
