/**
 * A daemon that is killed, and started again at once by whoever watches it: every port comes back by itself.
 * What is lost meanwhile is measured and printed.
 */
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { shim } from '../../src/native/shim.ts'
import { frame } from '../support/sim.ts'
import { FrontEnd, RING_SIZE } from '../support/front-end.ts'
import { frameNumber, Lab, tapSpec } from '../support/lab.ts'
import type { Lost } from '../support/numbered-flow.ts'
import { introduce, listen, NumberedFlow } from '../support/numbered-flow.ts'
import { until } from '../support/processes.ts'
import { addHosts, rawSpec } from '../support/raw-lab.ts'
import { Supervisor } from '../support/supervisor.ts'
import { makeTap } from '../support/tun.ts'
import { ControlClient } from '../../src/control/client.ts'

const RATE_FPS = 500
const GUEST_RATE_FPS = 100
const POLLRDHUP = 0x2000

const text = ({ sent, frames, ms }: Omit<Lost, 'overtaken'>): string =>
  `${frames} of ${sent} frames (${ms} ms)`

async function portStates(control: string): Promise<Record<string, string>> {
  const client = await ControlClient.connect(control)
  try {
    const ports = (await client.execute('query-ports')) as { id: string; state: string }[]
    return Object.fromEntries(ports.map(({ id, state }) => [id, state]))
  } finally {
    client.close()
  }
}

/** A guest that connects again whenever its back-end has gone, and numbers its frames. */
class ReturningGuest {
  connections = 0
  sent = 0
  readonly #path: string
  readonly #timer: NodeJS.Timeout
  #frontEnd: FrontEnd | undefined
  #isOver = false
  readonly #life: Promise<void>

  constructor(path: string) {
    this.#path = path
    this.#timer = setInterval(() => this.#send(), 1000 / GUEST_RATE_FPS)
    this.#life = this.#live()
  }

  async #live(): Promise<void> {
    while (!this.#isOver) {
      await new Promise((resolve) => setTimeout(resolve, 5))
      let frontEnd: FrontEnd
      try {
        frontEnd = FrontEnd.connect(this.#path)
      } catch {
        continue
      }
      try {
        await frontEnd.start()
        this.#frontEnd = frontEnd
        this.connections++
        while (!this.#isOver && (shim.poll(frontEnd.fd, POLLRDHUP, 0) & POLLRDHUP) === 0) {
          await new Promise((resolve) => setTimeout(resolve, 5))
        }
      } catch {
        // Its back-end was killed while they agreed.
      }
      this.#frontEnd = undefined
      frontEnd.close()
    }
  }

  /** Without a back-end, or room in its ring, a frame is lost at once. */
  #send(): void {
    const frontEnd = this.#frontEnd
    const waiting = frontEnd === undefined ? 0 : frontEnd.availIndex(1) - frontEnd.usedIndex(1)
    if ((waiting & 0xffff) < RING_SIZE) frontEnd?.transmit(frame(255, 200, this.sent))
    this.sent++
  }

  async end(): Promise<void> {
    clearInterval(this.#timer)
    this.#isOver = true
    await this.#life
  }
}

test('every port comes back by itself: persistent TAPs, a raw socket, a guest that connects again', async () => {
  await using lab = new Lab()
  const [a, b] = [1, 2].map((k) => ({ netns: lab.netns(), address: `10.0.0.${k}` }))
  for (const { netns } of [a, b]) makeTap(netns, 1)
  const { uplink, hosts } = addHosts(lab, 1)
  const host = { netns: hosts[0], address: '10.0.0.3' }
  const path = join(lab.directory, 'guest.sock')
  const taps = [a, b].flatMap(({ netns }, k) => ['--port', tapSpec(k + 1, netns, 'persist=on')])
  const others = ['--port', rawSpec(0, uplink), '--port', `vhost-user,id=g,path=${path}`]
  await using supervisor = await Supervisor.start(lab, false, ...taps, ...others)
  for (const end of [a, b, host]) lab.address(end.netns, end.address)
  introduce(lab, a, b, host)
  const heard = await listen(lab, b.netns)
  const guest = new ReturningGuest(path)
  await until('the guest has connected', () => guest.connections === 1)
  const flows = new Map<string, NumberedFlow>()
  for (const [k, [name, from, to]] of (
    [
      ['TAP to TAP', a, b],
      ['raw socket to TAP', host, a],
      ['TAP to raw socket', b, host],
    ] as const
  ).entries()) {
    flows.set(name, await NumberedFlow.start(lab, from, to, 5400 + k, RATE_FPS))
  }
  const arePassing = (): Promise<unknown> =>
    Promise.all([...flows.values()].map((flow) => flow.more(100)))
  await arePassing()
  const restarts: number[] = []
  for (let round = 1; round <= 3; round++) {
    restarts.push(Math.round(await supervisor.kill()))
    await arePassing()
    await until('the guest has connected again', () => guest.connections === round + 1)
    expect(await portStates(supervisor.control)).toEqual({
      p1: 'open',
      p2: 'open',
      p0: 'open',
      g: 'connected',
    })
  }
  await until('the guest is heard', () => heard.stdout.split('\n').length > guest.sent / 4)
  await guest.end()
  console.log(`killed three times, ready again after ${restarts.join(', ')} ms`)
  const ended = [...flows].map(async ([name, flow]) => [name, await flow.end()] as const)
  for (const [name, lost] of await Promise.all(ended)) {
    expect(lost.duplicates).toBe(0)
    console.log(`lost ${name}: ${text(lost)}`)
  }
  await heard.stop()
  const numbers = heard.stdout
    .split('\n')
    .slice(1, -1)
    .map((hex) => frameNumber(hex))
  const frames = guest.sent - new Set(numbers).size
  const ms = (frames / GUEST_RATE_FPS) * 1000
  const duplicates = numbers.length - new Set(numbers).size
  expect(duplicates).toBe(0)
  console.log(`lost guest to TAP: ${text({ sent: guest.sent, frames, ms, duplicates })}`)
  expect(await supervisor.stop()).toBe(0)
})
