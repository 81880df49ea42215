/**
 * Open vSwitch as an oracle: a private instance, whose ports are dummies that tests give frames to and take
 * them from. No kernel device, no namespace, no privilege.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Lab } from './lab.ts'
import type { Background } from './processes.ts'
import { sh, until } from './processes.ts'

const OVS = '/usr/lib/openvswitch-switch/ovs-vswitchd'
const SCHEMA = '/usr/share/openvswitch/vswitch.ovsschema'
/** Of the file: its header, and what stands before each frame. */
const PCAP_HEADER = 24
const PCAP_RECORD_HEADER = 16

export class Ovs {
  readonly #directory: string
  readonly #processes: Background[] = []
  /** Bytes of each port's file that were read. */
  readonly #read = new Map<string, number>()
  #bridges = 0

  private constructor(directory: string) {
    this.#directory = directory
  }

  /** `config` is other_config, as `vlan-limit=2`. Its processes are the lab's. */
  static async start(lab: Lab, ...config: string[]): Promise<Ovs> {
    const ovs = new Ovs(lab.directory)
    const [own, database] = [lab.directory, join(lab.directory, 'conf.db')]
    const env = { OVS_RUNDIR: own, OVS_DBDIR: own, OVS_LOGDIR: own }
    sh('ovsdb-tool', 'create', database, SCHEMA)
    const remote = ovs.#database
    ovs.#processes.push(
      lab.background('ovsdb-server', [database, '-vconsole:off', `--remote=p${remote}`], env),
    )
    await until('the database answers', () => succeeds(() => ovs.vsctl('--no-wait', 'init')))
    for (const item of config) {
      ovs.vsctl('--no-wait', 'set', 'Open_vSwitch', '.', `other_config:${item}`)
    }
    // It would wait for who reads its log, who waits for it.
    const args = [
      remote,
      '-vconsole:off',
      '--enable-dummy',
      '--disable-system',
      `--unixctl=${ovs.#control}`,
    ]
    ovs.#processes.push(lab.background(OVS, args, env))
    await until('it answers', () => succeeds(() => ovs.appctl('version')))
    return ovs
  }

  get #database(): string {
    return `unix:${join(this.#directory, 'db.sock')}`
  }

  get #control(): string {
    return join(this.#directory, 'ovs.ctl')
  }

  vsctl(...args: string[]): string {
    return sh('ovs-vsctl', `--db=${this.#database}`, ...args)
  }

  appctl(...args: string[]): string {
    return sh('ovs-appctl', '-t', this.#control, ...args)
  }

  /** A bridge without anything known, in the place of the one before; settings of its ports by name. */
  newBridge(ports: Readonly<Record<string, readonly string[]>>): void {
    this.vsctl('--if-exists', 'del-br', `br${this.#bridges}`)
    const bridge = `br${++this.#bridges}`
    const command = ['add-br', bridge, '--', 'set', 'bridge', bridge, 'datapath_type=dummy']
    this.#read.clear()
    for (const [name, settings] of Object.entries(ports)) {
      command.push('--', 'add-port', bridge, name, ...settings)
      command.push('--', 'set', 'interface', name, 'type=dummy')
      command.push(`options:tx_pcap=${this.#file(name)}`)
      this.#read.set(name, PCAP_HEADER)
    }
    this.vsctl(...command)
  }

  get bridge(): string {
    return `br${this.#bridges}`
  }

  #file(port: string): string {
    return join(this.#directory, `${this.bridge}-${port}.pcap`)
  }

  /** The frames, 60 bytes or more, enter by the port one after another, and have left when this resolves. */
  async give(port: string, ...frames: Uint8Array[]): Promise<void> {
    const before = this.#looked()
    const hex = frames.map((bytes) => Buffer.from(bytes).toString('hex'))
    this.appctl('netdev-dummy/receive', port, ...hex)
    await until('they are forwarded', () => this.#looked() >= before + frames.length)
  }

  /** Frames that the datapath has looked at. */
  #looked(): number {
    const counts = /hit:(\d+) missed:(\d+)/.exec(this.appctl('dpctl/show'))
    return counts === null ? 0 : Number(counts[1]) + Number(counts[2])
  }

  /** What left by the port since the last call. */
  taken(port: string): Uint8Array[] {
    const bytes = readFileSync(this.#file(port))
    const frames: Uint8Array[] = []
    let at = this.#read.get(port)!
    while (at < bytes.length) {
      const start = at + PCAP_RECORD_HEADER
      const length = bytes.readUInt32LE(at + 8)
      frames.push(new Uint8Array(bytes.subarray(start, start + length)))
      at = start + length
    }
    this.#read.set(port, at)
    return frames
  }

  async close(): Promise<void> {
    for (const one of this.#processes.toReversed()) await one.stop()
  }
}

function succeeds(action: () => unknown): boolean {
  try {
    action()
    return true
  } catch {
    return false
  }
}
