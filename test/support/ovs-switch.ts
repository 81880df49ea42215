/**
 * Open vSwitch as an oracle: a private instance whose ports are sockets of the test, so that no kernel touches
 * the frames. Its datapath is the userspace one (dpif-netdev), under the name by which it takes such ports.
 *
 * Frames cross each socket behind their length, 16 bits big-endian. When everything that was sent has been
 * forwarded is seen by frames through a second bridge: each of them that arrives was sent after the one before
 * had arrived, and in between all ports have been looked at.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { SwitchingOptions } from '../../src/port/switching-options.ts'
import { FrameSocket } from './frame-socket.ts'
import { Background, sh, until } from './processes.ts'

const PROGRAM = '/usr/lib/openvswitch-switch/ovs-vswitchd'
const SCHEMA = '/usr/share/openvswitch/vswitch.ovsschema'
/** Looks at all ports between two of them are whole. */
const FENCES = 4

/** Why it cannot be had; undefined: it can. */
export function whyNoOvs(): string | undefined {
  return existsSync(PROGRAM) && existsSync(SCHEMA) ? undefined : 'Open vSwitch is not installed'
}

export class OvsSwitch implements AsyncDisposable {
  readonly #directory: string = mkdtempSync(join(tmpdir(), 'framepump-ovs-'))
  readonly #processes: Background[] = []
  readonly #ports = new Map<string, FrameSocket>()

  /** With a bridge whose ports have these options: p0, p1 and so on. */
  static async start(ports: readonly SwitchingOptions[]): Promise<OvsSwitch> {
    const ovs = new OvsSwitch()
    try {
      await ovs.#start(ports)
      return ovs
    } catch (error) {
      await ovs[Symbol.asyncDispose]()
      throw error
    }
  }

  async #start(ports: readonly SwitchingOptions[]): Promise<void> {
    const database = join(this.#directory, 'conf.db')
    sh('ovsdb-tool', 'create', database, SCHEMA)
    this.#spawn('ovsdb-server', [database, `--remote=p${this.#database}`])
    await until('the database answers', () => {
      try {
        this.#vsctl('--no-wait', 'init')
        return true
      } catch {
        return false
      }
    })
    this.#vsctl('--no-wait', 'set', 'Open_vSwitch', '.', 'other_config:vlan-limit=2')
    this.#spawn(PROGRAM, ['--enable-dummy', `--unixctl=${this.#control}`, this.#database])
    const names = ports.map((_, at) => `p${at}`)
    this.#vsctl(
      ...bridge('br0', names, this.#directory),
      '--',
      ...bridge('br1', ['f0', 'f1'], this.#directory),
      ...ports.flatMap((options, at) => ['--', 'set', 'port', names[at], ...settings(options)]),
    )
    for (const name of [...names, 'f0', 'f1']) {
      const path = join(this.#directory, `${name}.sock`)
      this.#ports.set(name, await FrameSocket.connect(path, 2))
    }
  }

  get #database(): string {
    return `unix:${join(this.#directory, 'db.sock')}`
  }

  get #control(): string {
    return join(this.#directory, 'control.sock')
  }

  /**
   * Forgets what it has worked out for earlier frames. It keeps that for frames that are alike in what it had
   * looked at, which for VLAN 0 is not whether there is a tag.
   */
  forget(): void {
    sh('ovs-appctl', '-t', this.#control, 'revalidator/purge')
  }

  #spawn(program: string, args: readonly string[]): void {
    const own = this.#directory
    const env = { OVS_RUNDIR: own, OVS_DBDIR: own, OVS_LOGDIR: own }
    this.#processes.push(new Background(program, args, env))
  }

  #vsctl(...args: string[]): string {
    return sh('ovs-vsctl', '--timeout=30', `--db=${this.#database}`, ...args)
  }

  /** Sends frames into a port, and returns what each of all ports was given. */
  async through(port: number, frames: readonly Uint8Array[]): Promise<Uint8Array[][]> {
    for (const frame of frames) this.#ports.get(`p${port}`)!.send(frame)
    const fence = this.#ports.get('f1')!
    for (let passed = 0; passed < FENCES; passed++) {
      fence.frames.length = 0
      this.#ports.get('f0')!.send(new Uint8Array(60).fill(0xff, 0, 6).fill(2, 6, 12))
      await until('the fence is passed', () => fence.frames.length > 0)
    }
    const given: Uint8Array[][] = []
    for (const [name, { frames: got }] of this.#ports) {
      if (name.startsWith('p')) given.push(got.splice(0))
    }
    return given
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const port of this.#ports.values()) port.close()
    for (const process of this.#processes.toReversed()) await process.stop()
    rmSync(this.#directory, { recursive: true, force: true })
  }
}

function bridge(name: string, ports: readonly string[], directory: string): string[] {
  return [
    'add-br',
    name,
    '--',
    'set',
    'bridge',
    name,
    'datapath_type=dummy',
    'fail-mode=standalone',
    ...ports.flatMap((port) => [
      '--',
      'add-port',
      name,
      port,
      '--',
      'set',
      'interface',
      port,
      'type=dummy',
      `options:pstream=punix:${join(directory, `${port}.sock`)}`,
    ]),
  ]
}

/** The same in its words. */
function settings(options: SwitchingOptions): string[] {
  const list = (vlans: readonly (string | number)[]): string =>
    vlans
      .flatMap((one) => {
        const [first, last = first] = String(one).split('-').map(Number)
        return Array.from({ length: last - first + 1 }, (_, at) => first + at)
      })
      .join(',')
  const { 'vlan-mode': mode, tag, trunks, cvlans } = options
  const qinq = options['qinq-ethtype'] === '0x8100' ? '802.1q' : '802.1ad'
  return [
    ...(mode === undefined ? [] : [`vlan_mode=${mode}`]),
    ...(tag === undefined ? [] : [`tag=${tag}`]),
    ...(trunks === undefined ? [] : [`trunks=${list(trunks)}`]),
    ...(cvlans === undefined ? [] : [`cvlans=${list(cvlans)}`]),
    `other_config:qinq-ethtype=${qinq}`,
    `other_config:priority-tags=${options['priority-tags'] ?? 'never'}`,
  ]
}
