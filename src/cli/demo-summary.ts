/** How the demo ends: what went through the switch, and what to try next. */
import { basename, relative } from 'node:path'
import type { CaptureSummary, PortInfo } from '../switch/api.ts'
import { printable, printableJson } from '../switch/printable.ts'
import { counted } from '../text.ts'
import { EXIT_FAILED, formatBits, formatCount } from './common.ts'
import type { PingResult, TransferResult } from './demo-peer.ts'
import { dropsOf } from './demo-table.ts'

export interface DemoResults {
  readonly ping: PingResult
  readonly tcp: TransferResult
  readonly virtio: PingResult
  /** Null: there is none. */
  readonly uplink: PingResult | null
}

/** Prints it; returns the exit code. */
export function summarize(
  isJson: boolean,
  path: string,
  ports: readonly PortInfo[],
  results: DemoResults,
  capture: CaptureSummary,
): number {
  const frames = sum(ports, 'tx_frames')
  const bytes = sum(ports, 'tx_bytes')
  const lost = ports.reduce((total, port) => total + dropsOf(port), 0)
  const { ping, tcp, virtio, uplink } = results
  const pingsLost = [ping, virtio, uplink].reduce(
    (total, one) => total + (one === null ? 0 : one.sent - one.received),
    0,
  )
  const isComplete = tcp.receivedBytes === tcp.sentBytes && pingsLost === 0
  if (isJson) {
    const facts = { frames, bytes, lostFrames: lost, ...results, capture: { path, ...capture } }
    process.stdout.write(`${printableJson(facts, 2)}\n`)
  } else {
    const rate = formatBits(tcp.receivedBytes, tcp.seconds)
    const lines = [
      '',
      `frames forwarded  ${formatCount(frames)} (${frames})`,
      `bytes forwarded   ${formatCount(bytes)}B`,
      `tcp               ${formatCount(tcp.receivedBytes)}B at ${rate}`,
      `frames lost       ${lost}; pings lost ${pingsLost}`,
      `capture           ${printable(path)} (${counted(capture.frames, 'frame')}, ${capture.dropped} dropped)`,
      `                  ${comparison(frames, capture, ports)}`,
      '',
      ...nextSteps(path),
    ]
    process.stdout.write(`${lines.join('\n')}\n`)
  }
  if (capture.error !== undefined) {
    process.stderr.write(`${printable(`framepump: capture: ${capture.error}`)}\n`)
  }
  return isComplete && lost === 0 && capture.error === undefined ? 0 : EXIT_FAILED
}

type Counted = 'tx_frames' | 'tx_bytes' | 'tx_coalesced' | 'tx_segmented'

function sum(ports: readonly PortInfo[], name: Counted): number {
  return ports.reduce((total, port) => total + port.counters[name], 0)
}

/** Why the file has another number of frames than the switch has forwarded. */
function comparison(
  forwarded: number,
  { frames, dropped }: CaptureSummary,
  ports: readonly PortInfo[],
): string {
  const once = 'each frame is captured once, where it enters'
  if (frames === forwarded) return `as many as were forwarded: ${once}`
  if (frames < forwarded) {
    const reasons = [
      'one for everybody (ARP) leaves by every other port',
      ...(sum(ports, 'tx_segmented') > 0 ? ['a long one may leave in segments'] : []),
      ...(dropped > 0 ? ['the disk was too slow for some'] : []),
    ]
    return `${forwarded - frames} fewer than were forwarded: ${once}, but ${reasons.join(', and ')}`
  }
  const isMerged = sum(ports, 'tx_coalesced') > 0
  const reason = isMerged
    ? 'segments of TCP leave merged'
    : 'one for a port of its own goes nowhere'
  return `${frames - forwarded} more than were forwarded: ${once}, but ${reason}`
}

/** Commands to paste. */
function nextSteps(path: string): string[] {
  const command = commandName(process.argv[1], process.env)
  const isRoot = process.getuid?.() === 0 && process.env['FRAMEPUMP_DEMO_INSIDE'] === undefined
  const tap = (id: string, ifname: string): string => `--port tap,id=${id},ifname=${ifname},up=on`
  return [
    'What next:',
    `  wireshark ${quoted(path)}`,
    `  ${isRoot ? '' : 'sudo '}${command} run ${tap('a', 'fp0')} ${tap('b', 'fp1')}`,
    `  ${command} run --help`,
  ]
}

/** How whoever runs this calls it: the words before `run`. */
export function commandName(program: string, env: NodeJS.ProcessEnv): string {
  if (basename(program) === 'framepump') {
    return env['npm_command'] === 'exec' ? 'npx framepump' : 'framepump'
  }
  return `node ${quoted(relative(process.cwd(), program))}`
}

/** As a word of a shell. */
function quoted(text: string): string {
  const shown = printable(text)
  return /^[\w./@%+=:,-]+$/.test(shown) ? shown : `'${shown.replaceAll("'", `'\\''`)}'`
}
