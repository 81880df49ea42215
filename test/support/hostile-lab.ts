/**
 * A switch with a good guest (`w`), a memory port (`m`) and a port that a hostile front-end gets
 * (`g`). Whatever that one does, `expectUnharmed` says whether the others noticed.
 */
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { createSwitch as CreateSwitch, Switch } from '../../src/index.ts'
import { shim } from '../../src/native/shim.ts'
import { hasCome } from './bounded.ts'
import { FrontEnd } from './front-end.ts'
import { IO } from './lab.ts'
import { until } from './processes.ts'
import { frame } from './sim.ts'

const { createSwitch } = (await import('../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
}

const POSTED = 32

export class HostileLab {
  readonly directory: string = mkdtempSync(join(tmpdir(), 'framepump-hostile-'))
  readonly path: string = join(this.directory, 'g.sock')
  readonly log: string[] = []
  readonly sw: Switch
  #good!: FrontEnd
  readonly #open = new Set<FrontEnd>()
  #received = 0
  #sent = 0
  #number = 0
  #fds: readonly string[] = []
  #maps = 0

  private constructor() {
    this.sw = createSwitch({ io: IO as 'auto', log: (text) => this.log.push(text) })
  }

  static async open(queues = 1): Promise<HostileLab> {
    const lab = new HostileLab()
    const path = join(lab.directory, 'w.sock')
    await lab.sw.addPort({ type: 'memory', id: 'm' })
    await lab.sw.addPort({ type: 'vhost-user', id: 'w', path })
    await lab.sw.addPort({ type: 'vhost-user', id: 'g', path: lab.path, queues })
    lab.#good = FrontEnd.connect(path)
    await lab.#good.start()
    lab.#good.post(POSTED)
    // Whatever is opened once and kept is open after a first guest.
    const first = await lab.connect()
    await first.start()
    lab.kill(first)
    await until('the first guest is gone', () => lab.sw.port('g').state === 'disconnected')
    await lab.passesFrames()
    lab.#fds = openFds()
    lab.#maps = guestMaps()
    return lab
  }

  /** A front-end of the hostile port. */
  async connect(memfdFlags = 1): Promise<FrontEnd> {
    const fd = shim.socketUnix(1)
    // With a full backlog one has to wait.
    await until('the port takes the connection', () => shim.connectUnix(fd, this.path) === 0)
    const guest = new FrontEnd(fd, memfdFlags)
    this.#open.add(guest)
    return guest
  }

  /** Ends a front-end as a killed process does. */
  kill(guest: FrontEnd): void {
    if (this.#open.delete(guest)) guest.close()
  }

  get state(): string {
    return this.sw.port('g').state
  }

  stateIs(state: string): Promise<void> {
    return until(`the port is ${state}`, () => this.state === state)
  }

  /** A frame for everybody. */
  flood(): void {
    this.sw.memoryPort('m').send(frame(255, 1, 0))
  }

  /** A frame from the good guest to the memory port, and one back. */
  async passesFrames(): Promise<void> {
    const number = ++this.#number
    const memory = this.sw.memoryPort('m')
    await until('the good guest’s frame comes through', () => {
      // Again and again: with a flood from the hostile guest the memory port's ring may be full. But
      // only when the one before has been taken: a transmitq that stands still is found out.
      if (this.#good.usedIndex(1) === (this.#sent & 0xffff)) {
        this.#good.transmit(frame(255, 2, number))
        this.#sent++
      }
      return hasCome(memory, frame(255, 2, number))
    })
    await until('the good guest has its frame', async () => {
      // Again and again: what the hostile guest sent may have used up the buffers.
      memory.send(frame(255, 1, number))
      for (let count = 0; count < POSTED; count++) {
        if (this.#good.usedIndex(0) === (this.#received & 0xffff)) return false
        const received = await this.#good.receive()
        this.#received++
        this.#good.post(1)
        if (Buffer.compare(received.frame, frame(255, 1, number)) === 0) return true
      }
      return false
    })
  }

  /** The good guest goes on, and nothing of the hostile ones is left. */
  async expectUnharmed(): Promise<void> {
    for (const guest of this.#open) this.kill(guest)
    await this.passesFrames()
    await this.stateIs('disconnected')
    let left: string[] = []
    await until('the descriptors are those from before', () => {
      left = extra(this.#fds, openFds())
      return left.length === 0
    }).catch((error: unknown) => {
      throw new Error(`left open: ${left.join(', ')}`, { cause: error })
    })
    await until(`${this.#maps} mappings of guests are left`, () => guestMaps() === this.#maps)
    if (this.sw.port('w').state !== 'connected') throw new Error('the good guest is gone')
  }

  /** A guest on the hostile port finds it as good as new. */
  async expectUsable(): Promise<void> {
    await this.stateIs('disconnected')
    const guest = await this.connect()
    await guest.start()
    await this.stateIs('connected')
    guest.transmit(frame(255, 3, 0x600d))
    await until('the new guest’s frame comes through', () =>
      hasCome(this.sw.memoryPort('m'), frame(255, 3, 0x600d)),
    )
    this.kill(guest)
  }

  async close(): Promise<void> {
    for (const guest of this.#open) guest.close()
    this.#good.close()
    await this.sw.close()
    rmSync(this.directory, { recursive: true })
  }
}

/** What is behind every descriptor of this process. */
function openFds(): string[] {
  return readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`)
    } catch {
      // The one with which the directory was read.
      return 'gone'
    }
  })
}

/** Those of `now` that are not in `before`, or not as often; memory and sockets by kind. */
function extra(before: readonly string[], now: readonly string[]): string[] {
  const kind = (name: string): string => name.replace(/\d+/g, '')
  const rest = before.map(kind)
  return now.filter((name) => {
    const at = rest.indexOf(kind(name))
    if (at >= 0) rest.splice(at, 1)
    return at < 0
  })
}

const guestMaps = (): number =>
  readFileSync('/proc/self/maps', 'utf8').split('framepump-test-guest').length - 1
