/** The daemon beside stand-ins for its engine and its control socket: start, failures on the way, reload, end. */
import { beforeEach, expect, test, vi } from 'vitest'
import { parseConfig } from '../../../src/config/load.ts'
import type { EngineRequest } from '../../../src/engine/messages.ts'
import type { Privileges } from '../../../src/daemon/privileges.ts'

const asked: string[] = []
const told: string[] = []
/** Requests of this kind fail. */
let failing: string | undefined

vi.mock('../../../src/engine/client.ts', () => ({
  EngineClient: class {
    readonly counters = new Float64Array(32 * 1024)
    readonly engineCounters = new Float64Array(16)
    readonly signals = { context: 0n }

    wake = (): void => undefined
    together = <T>(make: () => T): T => make()

    request({ op }: EngineRequest): Promise<unknown> {
      asked.push(op)
      if (op === failing) return Promise.reject(new Error(`no ${op}`))
      return Promise.resolve(op === 'release' ? [] : undefined)
    }

    async *macTable(): AsyncGenerator {
      yield { rows: new Int32Array(0), next: -1, changes: 0 }
    }

    close(): Promise<void> {
      asked.push('close')
      return Promise.resolve()
    }
  },
}))

vi.mock('../../../src/control/server.ts', () => ({
  ControlServer: class {
    readonly path: string

    constructor(path: string) {
      this.path = path
    }

    sendEvent(event: string): void {
      told.push(event)
    }

    takePath(): void {
      told.push('takes the path')
    }

    close(): Promise<void> {
      told.push('closed')
      return Promise.resolve()
    }
  },
}))

const { Daemon } = await import('../../../src/daemon/daemon.ts')

const privileges = {
  check: () => undefined,
  explain: (error: unknown) => error,
  hold: () => Promise.resolve(void told.push('gives up privileges')),
  lock: () => Promise.resolve(void told.push('locks')),
  status: () => ({}),
} as unknown as Privileges

const version = { major: 0, minor: 1, micro: 0 }
const log: string[] = []

beforeEach(() => {
  asked.length = 0
  told.length = 0
  log.length = 0
  failing = undefined
})

const start = (text: string, reread?: () => string) =>
  Daemon.start({
    config: parseConfig(`io: read-write\n${text}`, 'x.yaml'),
    controlPath: '/nowhere/c.sock',
    version,
    log: (line) => log.push(line),
    privileges,
    ...(reread === undefined
      ? {}
      : { reread: () => parseConfig(`io: read-write\n${reread()}`, 'x.yaml') }),
  })

const port = (id: string): string => `{ id: ${id}, type: pcap, record: /dev/null }`
const ports = (...ids: string[]): string => `ports: [${ids.map(port).join(', ')}]\n`
const idsOf = (daemon: { switch: { ports(): { id: string }[] } }): string[] =>
  daemon.switch.ports().map(({ id }) => id)

test('opens what the config names, held, gives up privileges, and lets frames pass', async () => {
  const daemon = await start(ports('a', 'b'))
  expect(idsOf(daemon)).toEqual(['a', 'b'])
  expect(asked.filter((op) => op !== 'set-link')).toEqual(['add-port', 'add-port', 'release'])
  expect(told.slice(-1)).toEqual(['gives up privileges'])
  await daemon.close()
  expect(told.at(-1)).toBe('closed')
  expect(asked.at(-1)).toBe('close')
})

test('a start that fails closes what was opened, and throws', async () => {
  failing = 'release'
  await expect(start(ports('a'))).rejects.toThrow('no release')
  expect(asked.slice(-2)).toEqual(['remove-port', 'close'])
  expect(told.at(-1)).toBe('closed')
})

test('a reload applies the difference, and needs a file', async () => {
  let text = ports('a', 'b')
  const daemon = await start(text, () => text)
  text = ports('b', 'c')
  asked.length = 0
  await daemon.reload()
  expect(idsOf(daemon)).toEqual(['b', 'c'])
  expect(asked.filter((op) => op.endsWith('-port'))).toEqual(['remove-port', 'add-port'])
  await daemon.close()
  const without = await start('')
  await expect(without.reload()).rejects.toMatchObject({ code: 'NO_CONFIG' })
  await without.close()
})
