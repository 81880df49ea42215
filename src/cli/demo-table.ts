/**
 * The demo's table of ports, live from the first frame to the summary: on a terminal it redraws itself
 * below what is said, elsewhere it is a line for each port now and then.
 */
import { performance } from 'node:perf_hooks'
import type { PortInfo, Switch } from '../switch/api.ts'
import { formatBits, formatCount } from './common.ts'
import { hasReader } from './output.ts'
import { formatTable } from './table.ts'

const HEAD = ['PORT', 'RX FRAMES', 'RX', 'TX FRAMES', 'TX', 'DROPPED']
const REDRAW_MS = 500
const LINES_MS = 1000

interface Sample {
  readonly atMs: number
  readonly ports: readonly PortInfo[]
}

export class LiveTable {
  readonly #switch: Switch
  readonly #isTerminal: boolean = process.stdout.isTTY
  #before: Sample
  #timer: NodeJS.Timeout | undefined
  /** Lines of the table on the terminal, below everything else. */
  #text = ''

  constructor(of: Switch) {
    this.#switch = of
    this.#before = this.#sample()
  }

  start(): void {
    this.#before = this.#sample()
    const interval = this.#isTerminal ? REDRAW_MS : LINES_MS
    this.#timer = setInterval(() => this.#draw(), interval)
    if (this.#isTerminal) this.#draw()
  }

  /** A line above the table. */
  say(text: string): void {
    process.stdout.write(`${this.#erasing()}${text}\n${this.#text}`)
  }

  /** Draws how it is at the end. */
  stop(): void {
    if (this.#timer === undefined) return
    clearInterval(this.#timer)
    this.#timer = undefined
    if (hasReader()) this.#draw()
    this.#text = ''
  }

  #draw(): void {
    const now = this.#sample()
    const rows = rates(this.#before, now)
    this.#before = now
    if (this.#isTerminal) {
      const erasing = this.#erasing()
      this.#text = `${formatTable(HEAD, rows)}\n`
      process.stdout.write(erasing + this.#text)
      return
    }
    for (const [id, rxFrames, rx, txFrames, tx, drops] of rows) {
      process.stdout.write(
        `  ${id}: rx ${rxFrames} frames ${rx}, tx ${txFrames} frames ${tx}, dropped ${drops}\n`,
      )
    }
  }

  #erasing(): string {
    const lines = this.#text.split('\n').length - 1
    return lines === 0 ? '' : `\u001b[${lines}A\u001b[0J`
  }

  #sample(): Sample {
    return { atMs: performance.now(), ports: this.#switch.ports() }
  }
}

function rates(before: Sample, now: Sample): string[][] {
  const seconds = (now.atMs - before.atMs) / 1000
  const old = new Map(before.ports.map(({ id, counters }) => [id, counters]))
  return now.ports.map((port) => {
    const { id, counters } = port
    // A new port began at 0.
    const rate = (name: 'rx_bytes' | 'tx_bytes'): string =>
      formatBits(counters[name] - (old.get(id)?.[name] ?? 0), seconds)
    return [
      id,
      formatCount(counters.rx_frames),
      rate('rx_bytes'),
      formatCount(counters.tx_frames),
      rate('tx_bytes'),
      String(dropsOf(port)),
    ]
  })
}

/** Frames that entered or should have left by the port and did not, for whatever reason. */
export function dropsOf(port: PortInfo): number {
  return Object.entries(port.counters)
    .filter(([name]) => name.includes('_drop_'))
    .reduce((sum, [, value]) => sum + value, 0)
}
