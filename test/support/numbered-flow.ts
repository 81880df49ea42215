/** Numbered datagrams at a fixed rate from one namespace to another, and which of them did not arrive. */
import type { Lab } from './lab.ts'
import { IFNAME } from './lab.ts'
import type { Background } from './processes.ts'
import { sh, until } from './processes.ts'
import type { End } from './transfer.ts'

/** The receiver is ended, and does not end by itself. */
const FRAMES_MAX = '1000000'
const END_MS = '600000'

/** Made up for when it was late: so many a second, whoever else runs. */
const SENDER = `const [to, port, rate] = process.argv.slice(1); let n = 0, isOver = false;
  const socket = require('dgram').createSocket('udp4'); const start = performance.now();
  socket.on('error', () => {});
  const timer = setInterval(() => { const due = (performance.now() - start) * rate / 1000;
    while (n < due) { const data = Buffer.alloc(64); data.writeUInt32LE(n++, 0);
      socket.send(data, +port, to, () => {}) } }, 1);
  process.stdin.on('end', () => { clearInterval(timer); console.log(n);
    const last = Buffer.alloc(64, 255);
    setInterval(() => socket.send(last, +port, to, () => {}), 20) }).resume()`

/** In the place of a number: there are no more, and all that were sent before have come or are lost. */
const LAST = 0xffff_ffff

/** Prints what comes, frame by frame, until it is stopped. */
export async function listen(lab: Lab, netns: string, ...more: string[]): Promise<Background> {
  const recv = [lab.packetTool, 'recv', IFNAME, FRAMES_MAX, END_MS, ...more] as const
  const receiver = lab.start(netns, ...recv)
  await until('the receiver listens', () => receiver.stdout.includes('ready\n'))
  return receiver
}

/** They know each other for good: who has no carrier forgets what it has asked for. */
export function introduce(lab: Lab, ...ends: readonly End[]): void {
  for (const { netns } of ends) {
    for (const other of ends) {
      if (other.netns === netns) continue
      const mac = lab.mac(other.netns)
      const to = [other.address, 'lladdr', mac, 'dev', 'x0', 'nud', 'permanent']
      sh('ip', '-n', netns, 'neigh', 'replace', ...to)
    }
  }
}

export interface Lost {
  readonly sent: number
  readonly frames: number
  /** What is lost at that rate in this time. */
  readonly ms: number
  readonly duplicates: number
  /** Those that came behind a later one. */
  readonly overtaken: number
}

/** Of a frame as hex, behind Ethernet, IP and UDP headers. */
const PORT_AT = 36 * 2
const NUMBER_AT = 42 * 2

export class NumberedFlow {
  readonly #port: string
  readonly #seen: number[] = []
  #readTo = 0
  #isOver = false
  readonly #rateFps: number
  readonly #receiver: Background
  readonly #sender: Background

  private constructor(port: number, rateFps: number, receiver: Background, sender: Background) {
    this.#port = port.toString(16).padStart(4, '0')
    this.#rateFps = rateFps
    this.#receiver = receiver
    this.#sender = sender
  }

  /** `port`: of UDP, one for each flow. */
  static async start(
    lab: Lab,
    from: End,
    to: End,
    port: number,
    rateFps: number,
  ): Promise<NumberedFlow> {
    // The buffer of a socket of UDP does not hold what comes at once after a pause.
    const receiver = await listen(lab, to.netns, 'all')
    const numbers = [String(port), String(rateFps)]
    const node = process.execPath
    const sender = lab.start(from.netns, node, '-e', SENDER, to.address, ...numbers)
    return new NumberedFlow(port, rateFps, receiver, sender)
  }

  /** How many have arrived. */
  get arrived(): number {
    const { stdout } = this.#receiver
    for (;;) {
      const end = stdout.indexOf('\n', this.#readTo)
      if (end < 0) return this.#seen.length
      const hex = stdout.slice(this.#readTo, end)
      this.#readTo = end + 1
      if (hex.slice(PORT_AT, PORT_AT + 4) !== this.#port) continue
      const number = Buffer.from(hex.slice(NUMBER_AT, NUMBER_AT + 8), 'hex').readUInt32LE()
      if (number === LAST) this.#isOver = true
      else this.#seen.push(number)
    }
  }

  /** So many more have. */
  async more(count: number): Promise<void> {
    const before = this.arrived
    await until(`${count} more have arrived`, () => this.arrived >= before + count, 60_000)
  }

  async end(): Promise<Lost> {
    this.#sender.child.stdin!.end()
    await until('no more arrive', () => this.arrived >= 0 && this.#isOver)
    await this.#sender.stop()
    const sent = Number(this.#sender.stdout)
    await this.#receiver.stop()
    const seen = this.#seen
    const frames = sent - new Set(seen).size
    const ms = Math.round((frames / this.#rateFps) * 1000)
    const overtaken = seen.filter((number, at) => at > 0 && number < seen[at - 1]).length
    return { sent, frames, ms, duplicates: seen.length - new Set(seen).size, overtaken }
  }
}
