/**
 * One end of the demo: a process in a network namespace of its own that uses its kernel's stack.
 * The demo tells it what to do over the IPC channel; each order gets one answer.
 */
import { spawn, spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { refuseInspector } from './signals.ts'

void refuseInspector()

export type PeerOrder =
  | { readonly order: 'prepare' }
  | { readonly order: 'configure'; readonly ifname: string; readonly address: string }
  | { readonly order: 'uplink'; readonly ifname: string; readonly address: string }
  | { readonly order: 'ping'; readonly address: string; readonly count: number }
  | { readonly order: 'serve'; readonly port: number }
  | {
      readonly order: 'send'
      readonly address: string
      readonly port: number
      readonly seconds: number
    }

export interface PingResult {
  readonly sent: number
  readonly received: number
  /** On average; null: none was answered. */
  readonly rttMs: number | null
}

/** What the sender has sent, and the receiver got. */
export interface TransferResult {
  readonly sentBytes: number
  readonly receivedBytes: number
  readonly seconds: number
}

export type PeerAnswer = { readonly value: unknown } | { readonly error: string }

/** For each answer: what a machine that stands still for a while holds up is not lost. */
const PATIENCE_S = 20
const INTERVAL_MS = 100
const CHUNK = Buffer.alloc(256 * 1024, 'framepump ')

function ip(...args: string[]): void {
  const result = spawnSync('ip', args, { encoding: 'utf8' })
  if (result.status !== 0) throw new Error(`ip ${args.join(' ')}: ${result.stderr.trim()}`)
}

function prepare(): void {
  // IPv6 would send frames of its own while the other end is not up yet: they would count as lost.
  try {
    writeFileSync('/proc/sys/net/ipv6/conf/default/disable_ipv6', '1')
    writeFileSync('/proc/sys/net/ipv6/conf/all/disable_ipv6', '1')
  } catch {
    // A kernel without IPv6.
  }
  ip('link', 'set', 'lo', 'up')
}

function configure(ifname: string, address: string): void {
  ip('addr', 'add', `${address}/24`, 'dev', ifname)
  ip('link', 'set', ifname, 'up')
}

/** A cable: whatever leaves by the interface reaches the address at its other end. */
function uplink(ifname: string, address: string): void {
  const far = `${ifname}-far`
  ip('link', 'add', ifname, 'type', 'veth', 'peer', 'name', far)
  ip('link', 'set', ifname, 'up')
  configure(far, address)
}

/**
 * One after another, up to one that is not answered. They are programs of their own: after an answer ping waits for the
 * next one twice as long as for that, and no longer.
 */
async function ping(address: string, count: number): Promise<PingResult> {
  const times: number[] = []
  while (times.length < count) {
    const ms = await pingOnce(address)
    if (ms === null) break
    times.push(ms)
    await setTimeout(INTERVAL_MS)
  }
  const sum = times.reduce((one, other) => one + other, 0)
  return {
    sent: count,
    received: times.length,
    rttMs: times.length === 0 ? null : Number((sum / times.length).toFixed(3)),
  }
}

/** Milliseconds until the answer; null: there was none. */
async function pingOnce(address: string): Promise<number | null> {
  const child = spawn('ping', ['-n', '-q', '-c', '1', '-W', String(PATIENCE_S), address], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text))
  await new Promise((resolve) => child.once('close', resolve))
  const time = /= ([\d.]+)\//.exec(output)
  return time === null ? null : Number(time[1])
}

/** Listens; answers at once, and the bytes of the one connection are told as `received`. */
function serve(port: number): Promise<void> {
  return new Promise((resolve) => {
    const server = createServer((socket) => {
      let bytes = 0
      socket.on('data', (data) => (bytes += data.length))
      socket.on('end', () => {
        socket.end(String(bytes))
        server.close()
      })
    })
    server.listen(port, '0.0.0.0', () => resolve())
  })
}

/** Sends for some seconds; the receiver says how many bytes it got. */
function send(address: string, port: number, seconds: number): Promise<TransferResult> {
  return new Promise((resolve, reject) => {
    const startMs = Date.now()
    let sent = 0
    let answer = ''
    const socket = connect(port, address, () => {
      const pump = (): void => {
        // One at least, however late it is.
        while (sent === 0 || Date.now() - startMs < seconds * 1000) {
          sent += CHUNK.length
          if (!socket.write(CHUNK)) {
            socket.once('drain', pump)
            return
          }
        }
        socket.end()
      }
      pump()
    })
    socket.setEncoding('utf8')
    socket.on('data', (text: string) => (answer += text))
    socket.on('end', () =>
      resolve({
        sentBytes: sent,
        receivedBytes: Number(answer),
        seconds: (Date.now() - startMs) / 1000,
      }),
    )
    socket.on('error', reject)
  })
}

function obey(order: PeerOrder): unknown {
  switch (order.order) {
    case 'prepare':
      return prepare()
    case 'configure':
      return configure(order.ifname, order.address)
    case 'uplink':
      return uplink(order.ifname, order.address)
    case 'ping':
      return ping(order.address, order.count)
    case 'serve':
      return serve(order.port)
    case 'send':
      return send(order.address, order.port, order.seconds)
  }
}

process.on('message', (order: PeerOrder) => {
  const answer = (value: PeerAnswer): void => void process.send!(value)
  Promise.resolve()
    .then(() => obey(order))
    .then(
      (value) => answer({ value: value ?? null }),
      (error: Error) => answer({ error: error.message }),
    )
})
// Without the demo there is nothing to do.
process.on('disconnect', () => process.exit(0))
