/**
 * H11: a disk that is full, at the source or at the target of a hand-over. Both have a small file system of their
 * own, by a private mount. Whatever it is that finds no room: one of them forwards in the end.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { ControlClient } from '../../../src/control/client.ts'
import { CLI, frameHex, IO, Lab, tapSpec } from '../../support/lab.ts'
import type { Background } from '../../support/processes.ts'
import { sh, until } from '../../support/processes.ts'
import { Daemons, tapQueuesOf } from '../../support/upgrades.ts'

const NO_ROOM = 'No space left on device'

/** Daemons on a small file system. */
class Place implements AsyncDisposable {
  readonly lab: Lab
  readonly directory: string
  readonly control: string
  readonly netns: readonly string[]
  readonly daemons: Daemons
  #source: Background | undefined

  constructor(lab: Lab, isControlThere: boolean) {
    this.lab = lab
    this.directory = join(lab.directory, 'small')
    mkdirSync(this.directory)
    const control = join(isControlThere ? this.directory : lab.directory, 'control.sock')
    this.control = control
    this.netns = [lab.netns(), lab.netns()]
    this.daemons = new Daemons(control)
  }

  async start(limit: string, args: readonly string[], output: string): Promise<void> {
    const { directory } = this
    const script = `mount -t tmpfs -o ${limit},mode=700 tmpfs ${directory} && cd ${directory} && exec "$@" ${output}`
    const specs = this.netns.flatMap((name, k) => ['--port', tapSpec(k, name)])
    const command = ['run', '--io', IO, '--control', this.control, ...specs, ...args]
    const words = ['sh', '-c', script, 'sh', process.execPath, CLI, ...command]
    this.#source = this.lab.background('unshare', ['-m', ...words])
    await until('it is ready', () =>
      this.execute<{ ready: boolean }>('query-status').then(
        ({ ready }) => ready,
        () => false,
      ),
    )
    this.netns.forEach((name, k) => this.lab.address(name, `10.0.0.${k + 1}`))
    await this.execute('migrate-set-parameters', {
      'backend-transfer': true,
      'downtime-limit': 10_000,
    })
  }

  get pid(): number {
    return this.#source!.child.pid!
  }

  get log(): string {
    return this.#source!.stderr
  }

  /** Runs a program where the file system is seen. */
  inside(...command: string[]): Background {
    return this.lab.background('nsenter', ['-t', String(this.pid), '-m', ...command])
  }

  sh(script: string): string {
    return sh(
      'nsenter',
      '-t',
      String(this.pid),
      '-m',
      'sh',
      '-c',
      `cd ${this.directory}; ${script}`,
    )
  }

  /** Nothing can be written any more. */
  fill(): void {
    this.sh('cat /dev/zero >ballast 2>/dev/null || true')
  }

  /** No file can be made any more. */
  fillNames(): void {
    this.sh('n=0; while (: >name$n) 2>/dev/null; do n=$((n+1)); done')
  }

  upgrade(...options: string[]): Background {
    return this.inside(process.execPath, CLI, 'upgrade', '--control', this.control, ...options)
  }

  /** A target that waits, before there is no room; resolves with what hands over to it. */
  async target(...args: string[]): Promise<() => Promise<void>> {
    const path = join(this.lab.directory, 'next.sock')
    const command = ['run', '--io', IO, '--control', this.control, ...args]
    const next = this.inside(process.execPath, CLI, ...command, '--incoming', `unix:${path}`)
    await until('it waits', () => next.stderr.includes('framepump: ready'))
    return async () => {
      await this.execute('migrate', { uri: `unix:${path}` })
      await until('it has everything', async () => {
        const { running } = await this.execute<{ running: boolean }>('query-status')
        return running && this.daemons.pids.some((pid) => this.#forwards(pid, path))
      })
      await this.#source!.stop()
    }
  }

  #forwards(pid: number, path: string): boolean {
    const isTarget = sh('cat', `/proc/${pid}/cmdline`).includes(path)
    return isTarget && tapQueuesOf(pid) === this.netns.length && tapQueuesOf(this.pid) === 0
  }

  /** The control socket as others see it. */
  get controlHere(): string {
    return `/proc/${this.daemons.pids[0]}/root${this.control}`
  }

  async execute<T>(command: string, args: Record<string, unknown> = {}): Promise<T> {
    const client = await ControlClient.connect(this.controlHere)
    try {
      return (await client.execute(command, args)) as T
    } finally {
      client.close()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.daemons[Symbol.asyncDispose]()
  }
}

interface Row {
  readonly name: string
  /** Of the file system. */
  readonly limit: string
  readonly isControlThere?: true
  readonly args?: (place: Place) => string[]
  readonly output?: string
  readonly act: (place: Place) => Promise<unknown>
  /** Whether another one runs in the end. */
  readonly isReplaced: boolean
}

const inState = ({ lab }: Place): string[] => ['--config', join(lab.directory, 'switch.yaml')]

/** The command refuses, and the log of both says what has no room. */
async function refuses(place: Place): Promise<void> {
  const upgrade = place.upgrade()
  expect(await upgrade.exited).toBe(1)
  expect(upgrade.stderr).toContain('the successor has ended')
  expect(place.log).toContain(NO_ROOM)
}

async function works(place: Place): Promise<void> {
  const upgrade = place.upgrade()
  expect({ code: await upgrade.exited, stderr: upgrade.stderr }).toEqual({ code: 0, stderr: '' })
}

/** More than what is left of a page. */
const sendSome = ({ lab, netns }: Place): Promise<void> =>
  lab.send(
    netns[0],
    Array.from({ length: 20 }, (_, n) =>
      frameHex('ff:ff:ff:ff:ff:ff', '02:00:00:00:00:01', n, 1400),
    ),
  )

const stateOf = async (place: Place, id: string): Promise<string> => {
  const ports = await place.execute<{ id: string; state: string }[]>('query-ports')
  return ports.find((port) => port.id === id)!.state
}

const rows: readonly Row[] = [
  {
    name: 'the state directory, when the successor starts',
    limit: 'size=64k',
    args: inState,
    act: async (place) => {
      place.fill()
      await refuses(place)
      expect(place.log).toContain(`state-dir ${place.directory}/state cannot be used: ${NO_ROOM}`)
    },
    isReplaced: false,
  },
  {
    name: 'the state directory, when the target waits',
    limit: 'size=64k',
    args: inState,
    act: async (place) => {
      const handOver = await place.target(...inState(place))
      place.fill()
      await handOver()
    },
    isReplaced: true,
  },
  {
    name: 'the directory of the sockets, which can have no more of them',
    limit: 'size=64k,nr_inodes=16',
    isControlThere: true,
    act: async (place) => {
      place.fillNames()
      await refuses(place)
    },
    isReplaced: false,
  },
  {
    name: 'the log',
    limit: 'size=64k',
    args: () => ['--log-level', 'debug'],
    output: '2>>log',
    act: async (place) => {
      place.fill()
      await works(place)
    },
    isReplaced: true,
  },
  {
    name: 'the file of a capture',
    limit: 'size=64k',
    act: async (place) => {
      const ended: unknown[] = []
      const client = await ControlClient.connect(place.controlHere)
      client.events.on('event', (name, data) => name === 'CAPTURE_ENDED' && ended.push(data))
      await client.execute('capture-start', { path: join(place.directory, 'capture.pcapng') })
      const handOver = await place.target()
      place.fill()
      await handOver()
      expect(ended).toEqual([])
      await sendSome(place)
      await until('it has ended', () => ended.length === 1)
      expect(ended).toMatchObject([{ error: expect.stringContaining(NO_ROOM) as string }])
      client.close()
    },
    isReplaced: true,
  },
  {
    name: 'the file of a record port, when the target waits',
    limit: 'size=64k',
    args: ({ directory }) => ['--port', `pcap,id=rec,record=${join(directory, 'rec.pcapng')}`],
    act: async (place) => {
      const handOver = await place.target()
      place.fill()
      await handOver()
      expect(await stateOf(place, 'rec')).toBe('open')
      await sendSome(place)
      await until('it has failed', async () => (await stateOf(place, 'rec')) === 'failed')
    },
    isReplaced: true,
  },
  {
    name: 'the file of a record port, which has failed before',
    limit: 'size=64k',
    args: ({ directory }) => ['--port', `pcap,id=rec,record=${join(directory, 'rec.pcapng')}`],
    act: async (place) => {
      place.fill()
      await sendSome(place)
      await until('it has failed', async () => (await stateOf(place, 'rec')) === 'failed')
      const upgrade = place.upgrade()
      expect(await upgrade.exited).toBe(1)
      expect(upgrade.stderr).toContain('port "rec": cannot be handed over: cannot write')
      expect(upgrade.stderr).toContain(NO_ROOM)
      await place.execute('netdev_del', { id: 'rec' })
      await works(place)
    },
    isReplaced: true,
  },
]

test.for(rows)('H11: no room: $name', { timeout: 60_000 }, async (row) => {
  await using lab = new Lab()
  await using place = new Place(lab, row.isControlThere === true)
  const config = join(lab.directory, 'switch.yaml')
  writeFileSync(config, `state-dir: ${place.directory}/state\n`)
  await place.start(row.limit, row.args?.(place) ?? [], row.output ?? '')
  const first = place.pid
  await row.act(place)
  await until('one of them is left', () => place.daemons.pids.length === 1)
  const [last] = place.daemons.pids
  expect(last !== first).toBe(row.isReplaced)
  expect(tapQueuesOf(last)).toBe(place.netns.length)
  expect(await place.execute('query-status')).toMatchObject({ running: true })
  // That it forwards; what is lost is counted elsewhere.
  expect(lab.ping(place.netns[0], '10.0.0.2')).toBeGreaterThan(0)
})
