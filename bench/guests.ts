/**
 * Two vhost-user ports on a switch, and a testpmd that is both guests and passes every frame on from
 * one to the other, so that as many frames as the rings hold go round for ever.
 *
 *     [switch, CPU 0]  s0 --vhost-user-- virtio-user 0 [testpmd, io mode, CPU 1]
 *                      s1 --vhost-user-- virtio-user 1
 */
import type { ChildProcess } from 'node:child_process'
import { spawn } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Ovs, OVS_DPDK } from './ovs.ts'
import { Testpmd } from './testpmd.ts'
import { CLI, end, sleep, STARTING_LOOKS_MAX, VLAN } from './topology.ts'

export type GuestPeer = 'framepump' | 'testpmd' | 'ovs-dpdk'

const HUGE_PAGES = '/proc/sys/vm/nr_hugepages'
/** 256 MB for the guests, and as much for a switch that is DPDK itself, with room for its rounding. */
const HUGE_PAGES_NEEDED = 600
const HUGE_MEMORY = ['--in-memory', '-m', '256', '--single-file-segments']
/** With a VLAN the first guest is on an access port, the second one on a trunk. */
export const ACCESS_AND_TRUNK: readonly string[] = [`tag=${VLAN}`, `trunks=${VLAN}`]
/** Of guests that are set going. */
const STARTS_MAX = 5
const MACS = ['00:01:02:03:04:05', '00:01:02:03:04:06']
/** All that a guard can check; the address is that of the frames which testpmd begins with. */
const GUARDED: readonly string[] = MACS.map(
  (mac) => `guard=mac:arp:ipv4:ipv6:dhcp:ra,macs=${mac},ips=198.18.0.1`,
)

export interface GuestSetup {
  /** Of the ports of framepump. */
  readonly options: readonly string[]
  /** The second guest is on a trunk, of any switch. */
  readonly isTagged: boolean
  /** How guests pass frames on: as they are, or with their addresses and tags. */
  readonly mode: 'io' | 'mac'
}

const PLAIN: GuestSetup = { options: ['', ''], isTagged: false, mode: 'io' }
export const SETUPS = {
  'access-trunk': { options: ACCESS_AND_TRUNK, isTagged: true, mode: 'mac' },
  guards: { options: GUARDED, isTagged: false, mode: 'mac' },
  untagged: { ...PLAIN, mode: 'mac' },
} satisfies Record<string, GuestSetup>

/** A framepump on CPU 0 with a vhost-user port for each path; `options` are those of all ports, or of each. */
export async function startFramepump(
  paths: readonly string[],
  control: string,
  options: string | readonly string[] = '',
  args: readonly string[] = [],
): Promise<ChildProcess> {
  const ports = paths.flatMap((path, k) => [
    '--port',
    [`vhost-user,id=g${k},path=${path}`, typeof options === 'string' ? options : options[k]]
      .filter((part) => part !== '')
      .join(','),
  ])
  const command = [process.execPath, CLI, 'run', '--control', control, ...ports, ...args]
  const child = spawn('taskset', ['-c', '0', ...command], { stdio: ['ignore', 'ignore', 'pipe'] })
  let told = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (told += text))
  for (let tries = 0; !told.includes('ready'); tries++) {
    if (tries > STARTING_LOOKS_MAX || child.exitCode !== null) throw new Error(`framepump: ${told}`)
    await sleep(20)
  }
  return child
}

export class GuestBed {
  readonly #directory: string
  readonly #hugePagesBefore: string
  readonly #switches: ChildProcess[] = []
  #testpmdSwitch: Testpmd | undefined
  #ovs: Ovs | undefined
  #guests: Testpmd | undefined
  readonly #setup: GuestSetup

  private constructor(setup: GuestSetup) {
    this.#setup = setup
    this.#directory = `/tmp/framepump-bench-${process.pid}-guests`
    mkdirSync(this.#directory, { recursive: true })
    this.#hugePagesBefore = readFileSync(HUGE_PAGES, 'utf8')
    if (Number(this.#hugePagesBefore) < HUGE_PAGES_NEEDED) {
      writeFileSync(HUGE_PAGES, String(HUGE_PAGES_NEEDED))
    }
  }

  static async make(peer: GuestPeer, setup: GuestSetup = PLAIN): Promise<GuestBed> {
    const bed = new GuestBed(setup)
    try {
      if (peer === 'framepump') await bed.#startFramepump()
      else if (peer === 'testpmd') await bed.#startTestpmd()
      else await bed.#startOvs()
      await bed.#startGuests(peer === 'ovs-dpdk')
      return bed
    } catch (error) {
      await bed.close()
      throw error
    }
  }

  #path(name: string): string {
    return join(this.#directory, name)
  }

  async #startFramepump(): Promise<void> {
    const paths = [0, 1].map((k) => this.#path(`s${k}`))
    const control = this.#path('control.sock')
    this.#switches.push(await startFramepump(paths, control, this.#setup.options))
  }

  async #startTestpmd(): Promise<void> {
    const devices = [0, 1].map((k) => `net_vhost${k},iface=${this.#path(`s${k}`)},queues=1`)
    const args = ['--forward-mode=io', '--auto-start']
    this.#testpmdSwitch = new Testpmd(0, 'switch', HUGE_MEMORY, devices, args)
    await this.#testpmdSwitch.expect(/testpmd> /)
  }

  /** Two ports of a bridge that learns (actions=NORMAL). */
  async #startOvs(): Promise<void> {
    const config = ['dpdk-init=true', 'dpdk-socket-mem=384', 'dpdk-lcore-mask=0x1']
    this.#ovs = await Ovs.start(this.#directory, OVS_DPDK, [...config, 'pmd-cpu-mask=0x1'])
    for (const k of [0, 1]) {
      const options = `options:vhost-server-path=${this.#path(`s${k}`)}`
      this.#ovs.addPort(`vh${k}`, 'type=dpdkvhostuserclient', options)
      if (this.#setup.isTagged) this.#ovs.vsctl('set', 'port', `vh${k}`, ACCESS_AND_TRUNK[k])
    }
  }

  /** `isServer`: the guests listen and the switch connects. */
  async #startGuests(isServer: boolean): Promise<void> {
    const { isTagged, mode } = this.#setup
    const devices = MACS.map((mac, k) => {
      const path = this.#path(`s${k}`)
      return `net_virtio_user${k},mac=${mac},path=${path},mrg_rxbuf=1,server=${isServer ? 1 : 0}`
    })
    const peers = MACS.map((_, k) => `--eth-peer=${k},${MACS[1 - k]}`)
    this.#guests = new Testpmd(1, 'guests', HUGE_MEMORY, devices, mode === 'mac' ? peers : [])
    await this.#guests.expect(/testpmd> /)
    if (!isTagged) return
    // On the trunk tags come off and are put on again, by the driver of the guest.
    for (const line of ['port stop 1', 'vlan set strip on 1', `tx_vlan set 1 ${VLAN}`]) {
      await this.#guests.command(line, /testpmd> /)
    }
    await this.#guests.command('port start 1', /Done\s+testpmd> /)
  }

  /** Lets frames of a length go round; million frames per second and direction, at the guests. */
  async frames(length: number, seconds: number): Promise<number> {
    const guests = this.#guests!
    await guests.command(`set fwd ${this.#setup.mode}`, /mode\s+testpmd> /)
    await guests.command(`set txpkts ${length}`, /txpkts \d+\s+testpmd> /)
    await this.#setGoing()
    const [before, start] = [await this.#received(), performance.now()]
    await sleep(seconds * 1000)
    const frames = (await this.#received()) - before
    return frames / 2 / ((performance.now() - start) / 1000) / 1e6
  }

  /** A switch that has only just connected again loses all that there are: then there is another start. */
  async #setGoing(): Promise<void> {
    const guests = this.#guests!
    for (let tries = 1; ; tries++) {
      await guests.command('start tx_first 16', /packet forwarding[^]*testpmd> /)
      await sleep(1000)
      const before = await this.#received()
      await sleep(100)
      if ((await this.#received()) > before) return
      if (tries === STARTS_MAX) throw new Error('no frames go round between the guests')
      await guests.command('stop', /Done\.\s+testpmd> /)
    }
  }

  /** Frames that both guests have received. */
  async #received(): Promise<number> {
    const pattern = /RX-packets: (\d+)[^]*RX-packets: (\d+)[^]*Tx-pps/
    const [, first, second] = await this.#guests!.command('show port stats all', pattern)
    return Number(first) + Number(second)
  }

  async close(): Promise<void> {
    await this.#guests?.close()
    await this.#testpmdSwitch?.close()
    await this.#ovs?.close()
    for (const child of this.#switches.toReversed()) await end(child, () => child.kill('SIGTERM'))
    writeFileSync(HUGE_PAGES, this.#hugePagesBefore)
    rmSync(this.#directory, { recursive: true, force: true })
  }
}
