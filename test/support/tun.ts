/**
 * TAPs as the kernel shows them, for tests of a take-over: who holds them, how they are set, and
 * frames that go to a queue of one's choice.
 */
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, readSync } from 'node:fs'
import { IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TAP, IFF_VNET_HDR } from '../../src/abi/if-tun.ts'
import { shim } from '../../src/native/shim.ts'
import { readPcapng } from '../../src/wire/pcapng.ts'
import { bytesOf, ipv4Address, ipv4Frame, u16, UDP } from './flow-frames.ts'
import { IFNAME } from './lab.ts'
import { sh } from './processes.ts'

const TUN_NODE = '/dev/net/tun'
const EAGAIN = 'EAGAIN'
/** UDP source port of flow 0. */
const PORT_BASE = 1000
/** Ethernet and IPv4 header, then the ports. */
const UDP_OFFSET = 34
const NUMBER_OFFSET = 42

/** Makes a persistent TAP, which is up and nobody's. */
export function makeTap(netns: string, queues: number, ifname = IFNAME): void {
  const mode = queues > 1 ? ['multi_queue'] : []
  sh('ip', '-n', netns, 'tuntap', 'add', ifname, 'mode', 'tap', 'vnet_hdr', ...mode)
  sh('ip', '-n', netns, 'link', 'set', ifname, 'up')
}

export function deleteLink(netns: string, ifname = IFNAME): void {
  sh('ip', '-n', netns, 'link', 'del', ifname)
}

/** What the kernel says of a TAP without being asked through its descriptors. */
export interface TunState {
  /** Queues that processes hold, attached or not. */
  readonly held: number
  readonly isMultiQueue: boolean
  readonly hasVnetHdr: boolean
  /** It is up and somebody holds it: the kernel gives it frames. */
  readonly isRunning: boolean
}

/** null: there is no such interface. */
export function tunState(netns: string, ifname = IFNAME): TunState | null {
  const links = JSON.parse(sh('ip', '-n', netns, '-d', '-j', 'link')) as Record<string, unknown>[]
  const link = links.find((each) => each['ifname'] === ifname)
  if (link === undefined) return null
  const { info_data: data } = link['linkinfo'] as { info_data: Record<string, unknown> }
  const held = Number(data['numqueues'] ?? 0) + Number(data['numdisabled'] ?? 0)
  return {
    held,
    isMultiQueue: data['multi_queue'] === true,
    hasVnetHdr: data['vnet_hdr'] === true,
    isRunning: link['operstate'] === 'UP',
  }
}

/** Descriptors of the TUN device that a process has. */
export function tunDescriptors(pid: number): number[] {
  return readdirSync(`/proc/${pid}/fd`)
    .map(Number)
    .filter((fd) => {
      try {
        return readlinkSync(`/proc/${pid}/fd/${fd}`) === TUN_NODE
      } catch {
        // Closed meanwhile, as the one that lists the directory.
        return false
      }
    })
}

/**
 * Names of the shim's calls in a trace file that have to do with TAPs: their set-up, and reads of them.
 * The engine's warm-up reads sockets.
 */
export function tunCalls(trace: string): string[] {
  const names: string[] = []
  const taps = new Set<number>()
  for (const line of readFileSync(trace, 'utf8').split('\n')) {
    const [call, result] = line.split(' = ')
    const [name, ...numbers] = call.split(' ')
    const fd = Number(numbers[0])
    if (name === 'tunOpen') taps.add(Number(result))
    else if (name === 'tunGetIff') taps.add(fd)
    else if (name === 'close') taps.delete(fd)
    if (name.startsWith('tun') || (name === 'readFrames' && taps.has(fd))) names.push(name)
  }
  return names
}

/** Settings of the device behind these descriptors of ours, and what ethtool says of it. */
export function settings(netns: string, fds: readonly number[], ifname = IFNAME): unknown {
  return {
    ...tunState(netns, ifname),
    features: sh('ip', 'netns', 'exec', netns, 'ethtool', '-k', ifname),
    queues: fds.map((fd) => ({
      flags: shim.tunGetIff(fd, new Uint8Array(16)),
      headerLength: shim.tunGetVnetHdrSize(fd),
      sndbuf: shim.tunGetSndbuf(fd),
    })),
  }
}

/** Another process, as far as the kernel can tell: holds queues of a TAP. */
export class Holder implements Disposable {
  readonly fds: number[] = []

  constructor(netns: string, queues: number, ifname = IFNAME, isMultiQueue = queues > 1) {
    const netnsFd = openSync(`/run/netns/${netns}`, 'r')
    const flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (isMultiQueue ? IFF_MULTI_QUEUE : 0)
    try {
      for (let queue = 0; queue < queues; queue++) {
        const [name, stage] = [new Uint8Array(16), new Int32Array(1)]
        const fd = shim.tunOpen(netnsFd, TUN_NODE, ifname, flags, name, stage)
        if (fd < 0) throw new Error(`cannot hold ${ifname}: errno ${-fd}`)
        this.fds.push(fd)
      }
    } finally {
      closeSync(netnsFd)
    }
  }

  /** Takes the frames out of a queue; how many there were of each flow. */
  drain(queue: number): Map<number, number> {
    const flows = new Map<number, number>()
    const bytes = new Uint8Array(4096)
    for (;;) {
      try {
        const length = readSync(this.fds[queue], bytes)
        const { flow } = parseFlowFrame(bytes.subarray(10, length))
        flows.set(flow, (flows.get(flow) ?? 0) + 1)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === EAGAIN) return flows
        throw error
      }
    }
  }

  [Symbol.dispose](): void {
    for (const fd of this.fds.splice(0)) shim.close(fd)
  }
}

/** Frame `number` of a flow, as hex: the kernel chooses the queue by the flow. */
export function flowFrame(flow: number, number: number): string {
  const [from, to] = [ipv4Address('192.0.2.1'), ipv4Address('192.0.2.2')]
  const data = bytesOf(u16(number >>> 16), u16(number & 0xffff))
  const udp = bytesOf(u16(PORT_BASE + flow), u16(4000), u16(8 + 22), [0, 0], data)
  const frame = ipv4Frame(from, to, UDP, bytesOf(udp, new Uint8Array(18)))
  return Buffer.from(frame).toString('hex')
}

/** So many frames of each flow, numbered from `first`, one flow after the other in turn. */
export function flowFrames(flows: readonly number[], count: number, first = 0): string[] {
  return numbers(count).flatMap((number) => flows.map((flow) => flowFrame(flow, first + number)))
}

/** What a frame of flowFrame (hex) says. */
export const flowOf = (hex: string): { flow: number; number: number } =>
  parseFlowFrame(new Uint8Array(Buffer.from(hex, 'hex')))

function parseFlowFrame(frame: Uint8Array): { flow: number; number: number } {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length)
  return { flow: view.getUint16(UDP_OFFSET) - PORT_BASE, number: view.getUint32(NUMBER_OFFSET) }
}

/** The numbers of each flow's frames in a capture file, in their order. */
export function capturedFlows(path: string): Map<number, number[]> {
  const bytes = new Uint8Array(readFileSync(path))
  const flows = new Map<number, number[]>()
  readPcapng(bytes, {
    frame: (offset, length) => {
      const { flow, number } = parseFlowFrame(bytes.subarray(offset, offset + length))
      if (!flows.has(flow)) flows.set(flow, [])
      flows.get(flow)!.push(number)
    },
  })
  return flows
}

/** 0..count-1 */
export const numbers = (count: number): number[] => Array.from({ length: count }, (_, n) => n)
