/**
 * Two namespaces with a veth each, whose other ends are in a third one, where a switch has them by
 * packet sockets.
 *
 *     [generator, CPU 1] ns A --x0=veth0-- [switch in ns S, CPU 0] --veth1=x0-- ns B [kernel counts]
 */
import type { ChildProcess } from 'node:child_process'
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Ovs, OVS_DPDK } from './ovs.ts'
import { Testpmd } from './testpmd.ts'
import { addNetns, BIN, CLI, end, Ends, sh, sleep, STARTING_LOOKS_MAX, tcp } from './topology.ts'

/** `framepump-warm`: at `pace: warm`. */
export type RawPeer = 'framepump' | 'framepump-warm' | 'testpmd' | 'ovs' | 'c-reference'

const IFNAMES = ['veth0', 'veth1']
/** A ring of 2048 frames, as the C program has; the driver's own are of 512. */
const PACKET_RING = 'framesz=2048,blocksz=131072,framecnt=2048'
/** Needs no device that reads memory, so no huge pages. */
const ORDINARY_MEMORY = ['--no-huge', '--no-shconf', '-m', '128']

export class RawBed extends Ends {
  readonly #netns: string
  readonly #inNetns: readonly string[]
  readonly #directory: string
  #program: ChildProcess | undefined
  #testpmd: Testpmd | undefined
  #ovs: Ovs | undefined
  #output = ''

  private constructor() {
    super([`fpb${process.pid}a`, `fpb${process.pid}b`])
    this.#netns = `fpb${process.pid}s`
    this.#inNetns = ['ip', 'netns', 'exec', this.#netns]
    this.#directory = `/tmp/framepump-bench-${process.pid}-raw`
  }

  static async make(peer: RawPeer, hasVnetHdr: boolean): Promise<RawBed> {
    const bed = new RawBed()
    mkdirSync(bed.#directory, { recursive: true })
    try {
      for (const name of [...bed.netns, bed.#netns]) addNetns(name)
      bed.netns.forEach((name, k) => {
        const veth = ['type', 'veth', 'peer', 'name', 'x0', 'netns', name]
        sh('ip', '-n', bed.#netns, 'link', 'add', IFNAMES[k], ...veth)
        sh('ip', '-n', bed.#netns, 'link', 'set', IFNAMES[k], 'up')
      })
      await bed.#start(peer, hasVnetHdr)
      bed.up()
      return bed
    } catch (error) {
      await bed.close()
      throw error
    }
  }

  async #start(peer: RawPeer, hasVnetHdr: boolean): Promise<void> {
    if (peer === 'framepump') await this.#startFramepump(hasVnetHdr, 'adaptive')
    else if (peer === 'framepump-warm') await this.#startFramepump(hasVnetHdr, 'warm')
    else if (peer === 'testpmd') await this.#startTestpmd()
    else if (peer === 'ovs') await this.#startOvs(hasVnetHdr)
    else {
      const program = join(BIN, 'raw-reference')
      const args = [hasVnetHdr ? '1' : '0', ...IFNAMES]
      await this.#startProgram([...this.#inNetns, 'taskset', '-c', '0', program, ...args])
    }
  }

  async #startProgram(command: readonly string[]): Promise<void> {
    const child = spawn(command[0], command.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#program = child
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => (this.#output += text))
    }
    for (let tries = 0; !this.#output.includes('ready'); tries++) {
      if (tries > STARTING_LOOKS_MAX || child.exitCode !== null)
        throw new Error(`switch: ${this.#output}`)
      await sleep(20)
    }
  }

  async #startFramepump(hasVnetHdr: boolean, pace: string): Promise<void> {
    const ports = IFNAMES.flatMap((ifname, k) => [
      '--port',
      `raw-socket,id=p${k},ifname=${ifname},netns=${this.#netns},vnet_hdr=${hasVnetHdr ? 'on' : 'off'}`,
    ])
    const control = ['--control', join(this.#directory, 'control.sock')]
    const config = join(this.#directory, 'config.yaml')
    writeFileSync(config, `pace: ${pace}\n`)
    const run = [process.execPath, CLI, 'run', '--config', config, ...control, ...ports]
    await this.#startProgram(['taskset', '-c', '0', ...run])
  }

  async #startTestpmd(): Promise<void> {
    const devices = IFNAMES.map((ifname, k) => `net_af_packet${k},iface=${ifname},${PACKET_RING}`)
    const args = ['--forward-mode=io', '--auto-start']
    this.#testpmd = new Testpmd(0, 'raw', ORDINARY_MEMORY, devices, args, this.#inNetns)
    await this.#testpmd.expect(/testpmd> /)
  }

  /** Its build with DPDK, which alone has userspace-tso-enable; DPDK itself is not started. */
  async #startOvs(hasVnetHdr: boolean): Promise<void> {
    const config = hasVnetHdr ? ['userspace-tso-enable=true'] : []
    this.#ovs = await Ovs.start(this.#directory, OVS_DPDK, config, this.#netns)
    for (const ifname of IFNAMES) this.#ovs.addPort(ifname, 'type=system')
  }

  override get pid(): number {
    return this.#ovs?.pid ?? (this.#testpmd?.child ?? this.#program!).pid!
  }

  /** One TCP stream; Gbit/s, and microseconds of CPU per 64 KiB. */
  async tcp(seconds: number): Promise<{ gbitPerSecond: number; cpuUs: number }> {
    const [cpuBefore, bytesBefore] = [this.cpuSeconds(), this.receivedBytes()]
    const gbitPerSecond = await tcp(this.netns, seconds)
    if (gbitPerSecond === undefined) throw new Error(`no TCP connection: ${this.#output}`)
    const pieces = (this.receivedBytes() - bytesBefore) / 65536
    return { gbitPerSecond, cpuUs: ((this.cpuSeconds() - cpuBefore) * 1e6) / pieces }
  }

  async close(): Promise<void> {
    const program = this.#program
    if (program !== undefined) await end(program, () => program.kill('SIGTERM'))
    await this.#testpmd?.close()
    await this.#ovs?.close()
    for (const name of [...this.netns, this.#netns]) {
      spawnSync('ip', ['netns', 'del', name], { stdio: 'ignore' })
    }
    rmSync(this.#directory, { recursive: true, force: true })
  }
}
