/**
 * framepump demo: two namespaces, a TAP in each, and a third one beyond an uplink, real traffic by the
 * kernel's own stacks through the switch, and a capture of it. As root, or as an ordinary user inside a
 * user namespace. Everything it makes disappears with its processes.
 *
 *     [ns A: ping, TCP client]--eth0 (TAP)--[ framepump ]--eth0 (TAP)--[ns B: TCP server]
 *                                             |       |
 *             virtio-net device, in process --+       +-- up0 (raw socket)--veth pair--[ns C: ping]
 */
import type { ChildProcess } from 'node:child_process'
import { spawn, spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { FramepumpError } from '../errors.ts'
import { shimPath } from '../native/shim.ts'
import type { Switch, SwitchOptions } from '../switch/api.ts'
import { printable } from '../switch/printable.ts'
import { createSwitch } from '../switch/switch.ts'
import { EXIT_FAILED, MachineError } from './common.ts'
import { respond } from './demo-responder.ts'
import { summarize } from './demo-summary.ts'
import { LiveTable } from './demo-table.ts'
import type { PeerAnswer, PeerOrder, PingResult, TransferResult } from './demo-peer.ts'
import { findProgram } from './doctor.ts'
import { hasReader, onReaderGone } from './output.ts'

export interface DemoOptions {
  readonly seconds: number
  readonly capture: string
  readonly io: NonNullable<SwitchOptions['io']>
  readonly json?: boolean
}

const INSIDE = 'FRAMEPUMP_DEMO_INSIDE'
const IFNAME = 'eth0'
const ADDRESSES = ['10.99.0.1', '10.99.0.2'] as const
const DEVICE_ADDRESS = '10.99.0.3'
const UPLINK = 'up0'
const UPLINK_ADDRESS = '10.99.0.4'
const VERSION_1: bigint = 1n << 32n
const TCP_PORT = 5201
const PINGS = 5
/** Enough for the headers of every frame; whole frames would fill a disk in seconds. */
const SNAP_LENGTH = 128

export async function demo(options: DemoOptions): Promise<number> {
  checkMachine()
  if (process.getuid?.() !== 0 && process.env[INSIDE] === undefined) return enterUserNamespace()
  return runDemo(options)
}

function checkMachine(): void {
  for (const [program, debian] of [
    ['unshare', 'util-linux'],
    ['ip', 'iproute2'],
    ['ping', 'iputils-ping'],
  ] as const) {
    if (findProgram(program) === undefined) {
      throw new MachineError(`"${program}" is missing`, `apt-get install ${debian}`)
    }
  }
  if (!existsSync('/dev/net/tun')) {
    throw new MachineError('/dev/net/tun is missing', 'modprobe tun, or pass the device in')
  }
}

/** Runs the same command again as root of a user namespace of its own. */
async function enterUserNamespace(): Promise<number> {
  const unshare = ['--user', '--map-root-user', '--net']
  const probe = spawnSync('unshare', [...unshare, 'true'], { encoding: 'utf8' })
  if (probe.status !== 0) {
    throw new MachineError(
      `user namespaces are forbidden: ${probe.stderr.trim()}`,
      'run it as root, or allow unprivileged user namespaces (sysctl user.max_user_namespaces)',
    )
  }
  const child = spawn('unshare', [...unshare, process.execPath, ...process.argv.slice(1)], {
    stdio: 'inherit',
    // Inside, nobody but this user is known: whose the shim's directories are cannot be told.
    env: { ...process.env, [INSIDE]: '1', FRAMEPUMP_SHIM: shimPath },
  })
  const forward = (signal: NodeJS.Signals): void => void child.kill(signal)
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, forward)
  return new Promise((done) => child.once('exit', (code) => done(code ?? EXIT_FAILED)))
}

/**
 * A process in a namespace of its own, and in a group of its own: Ctrl-C is for the demo alone, which would else find
 * the namespaces of its peers gone before it has heard of it.
 */
class Peer {
  readonly child: ChildProcess

  constructor() {
    const program = fileURLToPath(new URL('../cli/demo-peer.js', import.meta.url))
    this.child = spawn('unshare', ['--net', process.execPath, program], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      detached: true,
    })
  }

  /** With whatever it has started. */
  kill(): void {
    const { pid } = this.child
    if (pid === undefined || this.hasEnded) return
    try {
      process.kill(-pid, 'SIGKILL')
    } catch {
      // It has just ended.
    }
  }

  order(order: PeerOrder): Promise<unknown> {
    return new Promise((done, fail) => {
      const ended = (): void => fail(new Error('a demo peer ended unexpectedly'))
      this.child.once('exit', ended)
      this.child.once('message', (answer: PeerAnswer) => {
        this.child.off('exit', ended)
        if ('error' in answer) fail(new Error(answer.error))
        else done(answer.value)
      })
      this.child.send(order, (error) => {
        if (error !== null) ended()
      })
    })
  }

  get hasEnded(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null
  }

  async stop(): Promise<void> {
    if (this.hasEnded) return
    const exited = new Promise((done) => this.child.once('exit', done))
    if (this.child.connected) this.child.disconnect()
    this.kill()
    await exited
  }
}

async function runDemo(options: DemoOptions): Promise<number> {
  const path = resolve(options.capture)
  // First, as it may refuse: the others have to be ended.
  const sw = createSwitch({ io: options.io })
  const table = options.json === true ? undefined : new LiveTable(sw)
  const say = (text: string): void => table?.say(text)
  const peers = [new Peer(), new Peer()] as const
  const beyond = new Peer()
  const all = [...peers, beyond]
  let interrupted = false
  const interrupt = (): void => {
    interrupted = true
    for (const peer of all) peer.kill()
  }
  // A lost terminal as well; from a terminal and from whoever started this a signal may come twice.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, interrupt)
  onReaderGone(interrupt)
  try {
    const cable = layCable(beyond)
    await Promise.all(peers.map((peer) => peer.order({ order: 'prepare' })))
    say(`switch: started, io ${sw.io}${sw.ioReason === undefined ? '' : ` (${sw.ioReason})`}`)
    for (const [at, peer] of peers.entries()) {
      const id = at === 0 ? 'a' : 'b'
      await addTap(sw, id, peer.child.pid!)
      say(`port ${id}: TAP ${IFNAME} in a namespace of its own, ${ADDRESSES[at]}`)
    }
    const hasUplink = await addUplink(sw, beyond, cable, say)
    const capture = await sw.startCapture({ to: { path }, snapLength: SNAP_LENGTH })
    await Promise.all(
      peers.map((peer, at) =>
        peer.order({ order: 'configure', ifname: IFNAME, address: ADDRESSES[at] }),
      ),
    )

    say(`ping: ${PINGS} from a to b${hasUplink ? ', and from the uplink to a' : ''} ...`)
    const pings = (address: string): PeerOrder => ({ order: 'ping', address, count: PINGS })
    const [ping, uplink] = (await Promise.all([
      peers[0].order(pings(ADDRESSES[1])),
      hasUplink ? beyond.order(pings(ADDRESSES[0])) : null,
    ])) as [PingResult, PingResult | null]
    say(`ping: ${ping.received} of ${ping.sent} answered, ${ping.rttMs ?? '-'} ms on average`)
    if (uplink !== null) {
      say(`ping: ${uplink.received} of ${uplink.sent} answered through the uplink`)
    }

    say(`tcp: ${options.seconds} s from a to b ...`)
    await peers[1].order({ order: 'serve', port: TCP_PORT })
    table?.start()
    const { seconds } = options
    const tcp = (await peers[0].order({
      order: 'send',
      address: ADDRESSES[1],
      port: TCP_PORT,
      seconds,
    })) as TransferResult

    const virtio = await pingDevice(sw, peers[0], say)
    const ports = sw.ports()
    const written = await capture.stop()
    if (interrupted) throw new Error('interrupted')
    table?.stop()
    return summarize(options.json === true, path, ports, { ping, tcp, virtio, uplink }, written)
  } catch (error) {
    table?.stop()
    if (!interrupted) throw error
    if (!hasReader()) return 0
    process.stderr.write('framepump: the demo was interrupted\n')
    return EXIT_FAILED
  } finally {
    await sw.close()
    for (const peer of all) await peer.stop()
  }
}

/** From TAP a to a virtio-net device in this process: through the switch, then on a link. */
async function pingDevice(
  sw: Switch,
  peer: Peer,
  say: (text: string) => void,
): Promise<PingResult> {
  await sw.addPort({ type: 'virtio-net', id: 'v' })
  const device = sw.virtioNetPort('v')
  await device.negotiate(VERSION_1)
  const end = new AbortController()
  const responder = respond(device, DEVICE_ADDRESS, end.signal)
  const order = { order: 'ping', address: DEVICE_ADDRESS, count: PINGS } as const
  say(`port v: a virtio-net device in this process, ${DEVICE_ADDRESS}`)
  try {
    const onSwitch = (await peer.order(order)) as PingResult
    say(`ping: ${onSwitch.received} of ${onSwitch.sent} answered through the switch`)
    await sw.addLink('a', 'v')
    const onLink = (await peer.order(order)) as PingResult
    say(`ping: ${onLink.received} of ${onLink.sent} answered on a link`)
    return {
      sent: onSwitch.sent + onLink.sent,
      received: onSwitch.received + onLink.received,
      rttMs: onLink.rttMs,
    }
  } finally {
    end.abort()
    await responder
  }
}

/** A veth pair in a namespace, with an address beyond it. Resolves with what stands in the way. */
async function layCable(beyond: Peer): Promise<unknown> {
  try {
    await beyond.order({ order: 'prepare' })
    await beyond.order({ order: 'uplink', ifname: UPLINK, address: UPLINK_ADDRESS })
    return undefined
  } catch (error) {
    return error
  }
}

/**
 * A raw socket on one end of the cable. False: this machine has none for us (a container without
 * CAP_NET_RAW, a kernel without veth); the rest works all the same.
 */
async function addUplink(
  sw: Switch,
  beyond: Peer,
  cable: Promise<unknown>,
  say: (text: string) => void,
): Promise<boolean> {
  try {
    const obstacle = await cable
    if (obstacle !== undefined) throw obstacle
    await sw.addPort({
      type: 'raw-socket',
      id: 'u',
      ifname: UPLINK,
      netns: String(beyond.child.pid),
    })
  } catch (error) {
    if (beyond.hasEnded) throw error
    say(`port u: no uplink: ${printable((error as Error).message)}`)
    return false
  }
  say(`port u: a raw socket on ${UPLINK}, an end of a veth pair, beyond which is ${UPLINK_ADDRESS}`)
  return true
}

async function addTap(sw: Switch, id: string, pid: number): Promise<void> {
  try {
    await sw.addPort({ type: 'tap', id, ifname: IFNAME, netns: String(pid) })
  } catch (error) {
    if (error instanceof FramepumpError && error.code === 'TAP_NODE') {
      throw new MachineError(error.message, error.hint ?? 'chmod 0666 /dev/net/tun')
    }
    throw error
  }
}
