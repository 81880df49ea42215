/** Numbered datagrams both ways, between namespaces and guests, and what became of each: c/numbered-udp.c. */
import type { Lab } from './lab.ts'
import { compiledTool } from './lab.ts'
import { sh, until } from './processes.ts'
import type { Guest } from './qemu.ts'

/** The tool tells what it knows after 20 s without anything. */
const END_MS = 120_000

export interface UdpResult {
  readonly sent: number
  /** What the other side has sent; -1: it has not said so. */
  readonly expected: number
  readonly received: number
  readonly duplicates: number
  readonly overtaken: number
  readonly corrupt: number
  /** The longest time without a message. */
  readonly silenceUs: number
  /** When that was over: microseconds of CLOCK_MONOTONIC, where it was received. */
  readonly silentUntilUs: number
  /** First and last number that were left out, and when: microseconds of CLOCK_MONOTONIC. */
  readonly gaps: readonly (readonly [from: number, to: number, atUs: number])[]
}

/** One end of a flow: where the tool runs. */
interface Tool {
  isReady(): Promise<boolean>
  signal(name: 'SIGUSR1' | 'SIGTERM'): Promise<void>
  /** What it printed at last. */
  output(): Promise<string>
}

/** Where a flow can end. */
export interface UdpPlace {
  readonly name: string
  readonly address: string
  readonly mac: string
  start(port: number, to: UdpPlace, toPort: number, rateFps: number): Promise<Tool>
  /** It knows the address of the other one for good. */
  neighbour(address: string, mac: string): Promise<void>
  /** How many of so many pings are answered. */
  ping(address: string, pings: number): Promise<number>
}

export function inNetns(
  lab: Lab,
  name: string,
  netns: string,
  address: string,
): UdpPlace & { readonly netns: string } {
  return {
    name,
    netns,
    address,
    mac: lab.mac(netns),
    start: (port, to, toPort, rateFps) => {
      const args = [address, String(port), to.address, String(toPort), String(rateFps)]
      const process = lab.start(netns, compiledTool('numbered-udp'), ...args)
      return Promise.resolve({
        isReady: () => {
          if (!process.isRunning) throw new Error(`numbered-udp at ${name}: ${process.stderr}`)
          return Promise.resolve(process.stdout.includes('ready'))
        },
        signal: (signal) => {
          process.child.kill(signal)
          return Promise.resolve()
        },
        output: () => Promise.resolve(process.stdout + process.stderr),
      })
    },
    neighbour: (other, mac) => {
      const to = [other, 'lladdr', mac, 'dev', 'x0', 'nud', 'permanent']
      sh('ip', '-n', netns, 'neigh', 'replace', ...to)
      return Promise.resolve()
    },
    ping: (other, pings) => Promise.resolve(lab.ping(netns, other, pings)),
  }
}

/** One flow can end in a guest: its tool is found by its name. */
export function inGuest(guest: Guest, name: string, address: string, mac: string): UdpPlace {
  const file = '/tmp/numbered-udp'
  const read = (): Promise<string> => guest.output(`cat ${file}`)
  return {
    name,
    address,
    mac,
    start: async (port, to, toPort, rateFps) => {
      const args = `${address} ${port} ${to.address} ${toPort} ${rateFps}`
      await guest.output(`numbered-udp ${args} >${file} 2>&1 &`)
      return {
        isReady: async () => (await read()).includes('ready'),
        signal: async (signal) => {
          await guest.output(`killall -${signal.replace('SIG', '')} numbered-udp`)
        },
        output: read,
      }
    },
    neighbour: async (other, of) => {
      await guest.output(`arp -s ${other} ${of}`)
    },
    ping: (other, pings) => guest.ping(other, pings),
  }
}

export class NumberedUdp {
  readonly name: string
  readonly ends: readonly [UdpPlace, UdpPlace]
  /** Of UDP, of both ends; one for each flow. */
  readonly ports: readonly [number, number]
  readonly #tools: readonly Tool[]

  private constructor(
    ends: readonly [UdpPlace, UdpPlace],
    ports: readonly [number, number],
    tools: readonly Tool[],
  ) {
    this.name = `${ends[0].name} - ${ends[1].name}`
    this.ends = ends
    this.ports = ports
    this.#tools = tools
  }

  /** Both ends listen. */
  static async open(
    ends: readonly [UdpPlace, UdpPlace],
    port: number,
    rateFps: number,
  ): Promise<NumberedUdp> {
    const ports = [port, port + 1] as const
    const [a, b] = ends
    const tools = [
      await a.start(ports[0], b, ports[1], rateFps),
      await b.start(ports[1], a, ports[0], rateFps),
    ]
    for (const tool of tools) await until('both ends listen', () => tool.isReady())
    return new NumberedUdp(ends, ports, tools)
  }

  async begin(): Promise<void> {
    for (const tool of this.#tools) await tool.signal('SIGUSR1')
  }

  /** Neither sends any more; what is on its way is on its way. */
  async end(): Promise<void> {
    for (const tool of this.#tools) await tool.signal('SIGTERM')
  }

  /** What each end has received, after `end`. */
  async results(): Promise<readonly [UdpResult, UdpResult]> {
    const results: UdpResult[] = []
    for (const [k, tool] of this.#tools.entries()) {
      let line: string | undefined
      const isOver = async (): Promise<boolean> => {
        line = (await tool.output()).split('\n').find((one) => one.startsWith('{'))
        return line?.endsWith('}') === true
      }
      await until(`${this.ends[k].name} tells what it has received`, isOver, END_MS)
      results.push(JSON.parse(line!) as UdpResult)
    }
    return results as [UdpResult, UdpResult]
  }
}
