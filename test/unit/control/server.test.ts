/** Sessions of the control socket, without a socket: what clients say, and what they are told. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { ServedCommand } from '../../../src/control/server.ts'
import { ControlServer } from '../../../src/control/server.ts'
import { makeCommands } from '../../../src/control/commands.ts'
import type { Session } from '../../../src/control/session.ts'
import { Pages } from '../../../src/control/session.ts'
import { StateError } from '../../../src/errors.ts'
import { shim } from '../../../src/native/shim.ts'
import type { SocketHandlers } from '../../../src/sockets/socket-thread.ts'

/** The I/O thread: what it is asked, by connection. */
const io = vi.hoisted(() => ({
  handlers: undefined as SocketHandlers | undefined,
  sent: new Map<number, string>(),
  answered: [] as number[],
  hungUp: [] as number[],
  drained: async () => {},
  released: false,
  paths: [] as string[],
  isAnswered: false,
}))

vi.mock('../../../src/sockets/socket-thread.ts', () => ({
  SocketThread: {
    acquire: () => ({
      listen: (_fd: number, _framing: string, handlers: SocketHandlers) => {
        io.handlers = handlers
        return 1
      },
      send: (connection: number, data: Uint8Array) => {
        const before = io.sent.get(connection) ?? ''
        io.sent.set(connection, before + Buffer.from(data).toString())
      },
      answered: (connection: number) => io.answered.push(connection),
      hangUp: (connection: number) => io.hungUp.push(connection),
      drained: () => io.drained(),
      ignore: async () => undefined,
      release: async () => {
        io.released = true
      },
    }),
  },
}))
vi.mock('../../../src/sockets/listening-socket.ts', () => ({
  ListeningSocket: class {
    readonly fd = 1_000_000
    readonly file: { path: string; moveTo(path: string): void }
    constructor(path: string) {
      io.paths.push(path)
      this.file = {
        path,
        moveTo: (to) => {
          this.file.path = to
        },
      }
    }
    close(): void {
      io.paths.push('closed')
    }
  },
}))
vi.mock('../../../src/sockets/listen.ts', async (original) => ({
  ...(await original<object>()),
  isAnswered: () => io.isAnswered,
}))

const served = (run: ServedCommand['run'], more: Partial<ServedCommand> = {}): ServedCommand => ({
  arguments: {},
  isOpen: false,
  run,
  ...more,
})

let session: Session | undefined
let carriedOut: string[]
const COMMANDS: ReadonlyMap<string, ServedCommand> = new Map([
  ['qmp_capabilities', makeCommands({} as never).get('qmp_capabilities')!],
  ['nothing', served(() => undefined)],
  [
    'note',
    served(
      async ({ text }, of) => {
        session = of
        await Promise.resolve()
        carriedOut.push(String(text))
        return { text }
      },
      {
        arguments: {
          text: { kind: 'string', required: true, description: 'A text.' },
          up: { kind: 'boolean', description: 'A boolean.' },
          count: { kind: 'number', description: 'A number.' },
          share: { kind: 'integer', range: [1, 9], description: 'A whole number.' },
          names: { kind: 'list', of: { kind: 'string' }, description: 'Texts.' },
          way: { kind: 'choice', values: ['in', 'out', 'both'], description: 'One of them.' },
        },
      },
    ),
  ],
  ['open', served((args) => args, { isOpen: true })],
  [
    'fail',
    served(() => {
      const error = new StateError('PORT_NOT_FOUND', `Device 'x' not found`, { hint: 'look' })
      error.port = 'x'
      throw error
    }),
  ],
  ['take', served((_, { fds, received }) => fds.add('x', received.shift()!))],
])

let server: ControlServer
const closed: number[] = []
beforeEach(() => {
  carriedOut = []
  session = undefined
  closed.length = 0
  Object.assign(io, { sent: new Map(), answered: [], hungUp: [], paths: [], isAnswered: false })
  io.drained = async () => {}
  vi.spyOn(shim, 'close').mockImplementation((fd) => {
    closed.push(fd)
    return 0
  })
  server = new ControlServer('/x', COMMANDS, { major: 1, minor: 2, micro: 3 })
})
afterEach(async () => {
  await server.close()
  vi.restoreAllMocks()
})

interface Told {
  readonly event?: string
  readonly timestamp?: { readonly seconds: number }
}

/** What a connection was told since it was asked last, a message each. */
function told(connection = 1): Told[] {
  const text = io.sent.get(connection) ?? ''
  io.sent.delete(connection)
  return text
    .split('\r\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Told)
}

/** Resolves when the request is answered. */
async function say(value: unknown, connection = 1, fds: number[] = []): Promise<void> {
  const count = io.answered.length
  io.handlers!.received(connection, { value }, fds)
  await vi.waitFor(() => expect(io.answered.length).toBe(count + 1))
}

async function connected(connection = 1): Promise<void> {
  io.handlers!.opened(connection)
  await say({ execute: 'qmp_capabilities' }, connection)
  told(connection)
}

describe('a session', () => {
  test('is greeted, and negotiates before anything else', async () => {
    io.handlers!.opened(1)
    const version = { qemu: { major: 1, minor: 2, micro: 3 }, package: 'framepump' }
    expect(told()).toEqual([{ QMP: { version, capabilities: [] } }])
    await say({ execute: 'nothing' })
    await say({ execute: 'no-such' })
    await say({ execute: 'qmp_capabilities', arguments: { enable: 'oob' } })
    await say({ execute: 'qmp_capabilities', id: 7 })
    await say({ execute: 'qmp_capabilities' })
    await say({ execute: 'nothing' })
    const desc = `Expecting capabilities negotiation with 'qmp_capabilities'`
    expect(told()).toMatchObject([
      { error: { class: 'CommandNotFound', desc } },
      { error: { class: 'CommandNotFound', desc } },
      {
        error: {
          class: 'GenericError',
          desc: `Invalid parameter type for 'enable', expected: array`,
        },
      },
      { return: {}, id: 7 },
      {
        error: {
          class: 'CommandNotFound',
          desc: 'Capabilities negotiation is already complete, command ignored',
        },
      },
      { return: {} },
    ])
  })

  test('has its requests carried out one after the other, and gets each id back', async () => {
    await connected()
    for (const text of ['a', 'b', 'c']) {
      io.handlers!.received(1, { value: { execute: 'note', arguments: { text }, id: [text] } }, [])
    }
    await vi.waitFor(() => expect(carriedOut).toEqual(['a', 'b', 'c']))
    await vi.waitFor(() => expect(io.answered.length).toBe(4))
    expect(told()).toEqual(['a', 'b', 'c'].map((text) => ({ return: { text }, id: [text] })))
  })

  test('that was cut has nothing more carried out, and loses what it handed over', async () => {
    await connected()
    const request = (text: string): unknown => ({ execute: 'note', arguments: { text } })
    io.handlers!.received(1, { value: request('a') }, [])
    io.handlers!.received(1, { value: request('b') }, [1_000_005])
    await io.handlers!.closed(1, true)
    expect(carriedOut).toEqual([])
    expect(closed).toEqual([1_000_005])
  })

  test('that ends closes what it kept, and ends its captures', async () => {
    await connected()
    await say({ execute: 'take' }, 1, [1_000_001, 1_000_002])
    // Nobody took the second one.
    expect(closed).toEqual([1_000_002])
    await say({ execute: 'note', arguments: { text: 'a' } })
    const ended = vi.fn<() => void>()
    session!.captures.set(1, ended)
    await io.handlers!.closed(1, false)
    expect(ended).toHaveBeenCalledOnce()
    expect(closed).toEqual([1_000_002, 1_000_001])
    io.handlers!.received(1, { value: {} }, [1_000_003])
    expect(closed).toEqual([1_000_002, 1_000_001, 1_000_003])
  })
})

describe('a request', () => {
  test.each([
    [[], 'QMP input must be a JSON object'],
    [null, 'QMP input must be a JSON object'],
    [{}, `QMP input lacks member 'execute'`],
    [{ execute: 1 }, `QMP input member 'execute' must be a string`],
    [{ execute: 'note', arguments: [] }, `QMP input member 'arguments' must be an object`],
    [{ execute: 'note', args: {} }, `QMP input member 'args' is unexpected`],
  ])('%j is none', async (value, desc) => {
    await connected()
    await say(value)
    expect(told()).toEqual([{ error: { class: 'GenericError', desc, code: 'QMP_SYNTAX' } }])
  })

  test('that is no JSON, or too much, is told with its id', async () => {
    await connected()
    io.handlers!.received(1, { error: 'JSON parse error' }, [])
    io.handlers!.received(1, { error: 'too deep', value: { id: 5 } }, [])
    await vi.waitFor(() => expect(io.answered.length).toBe(3))
    expect(told()).toMatchObject([
      { error: { desc: 'JSON parse error', code: 'QMP_SYNTAX' } },
      { error: { desc: 'too deep', code: 'OUT_OF_RESOURCES' }, id: 5 },
    ])
  })

  test('of an unknown command names the nearest one', async () => {
    await connected()
    for (const execute of ['notes', 'quit', 'toString']) await say({ execute })
    const error = { class: 'CommandNotFound', code: 'QMP_COMMAND' }
    expect(told()).toEqual([
      {
        error: {
          ...error,
          desc: 'The command notes has not been found',
          hint: 'did you mean "note"?',
        },
      },
      { error: { ...error, desc: 'The command quit has not been found' } },
      { error: { ...error, desc: 'The command toString has not been found' } },
    ])
  })

  test.each([
    [{}, `Parameter 'text' is missing`],
    [{ up: 1 }, `Parameter 'text' is missing`],
    [{ text: 1 }, `Invalid parameter type for 'text', expected: string`],
    [{ text: null }, `Invalid parameter type for 'text', expected: string`],
    [{ text: '', up: 'on' }, `Invalid parameter type for 'up', expected: boolean`],
    [{ text: '', count: '1' }, `Invalid parameter type for 'count', expected: number`],
    ...[0, 10, 1.5].map((share): [object, string] => [
      { text: '', share },
      `Parameter 'share' expects an integer in the range of 1 to 9`,
    ]),
    [{ text: '', names: 'a' }, `Invalid parameter type for 'names', expected: array`],
    [{ text: '', names: ['a', 1] }, `Invalid parameter type for 'names[1]', expected: string`],
    [{ text: '', way: 1 }, `Invalid parameter type for 'way', expected: string`],
    [{ text: '', way: 'up' }, `Parameter 'way' must be in, out or both`],
    [{ text: '', x: 1 }, `Parameter 'x' is unexpected`],
    // What is of a wrong type is told before what is too much.
    [{ x: 1, text: 1 }, `Invalid parameter type for 'text', expected: string`],
    [{ text: '', constructor: 1 }, `Parameter 'constructor' is unexpected`],
  ])('with the arguments %j is refused', async (args, desc) => {
    await connected()
    await say({ execute: 'note', arguments: args })
    expect(told()).toEqual([{ error: { class: 'GenericError', desc, code: 'QMP_ARGUMENT' } }])
    expect(carriedOut).toEqual([])
  })

  test('may have any arguments where the command takes any', async () => {
    await connected()
    await say({ execute: 'open', arguments: { x: [1] } })
    expect(told()).toEqual([{ return: { x: [1] } }])
  })

  test('that fails is told with its class, code, hint and port', async () => {
    await connected()
    await say({ execute: 'fail' })
    expect(told()).toEqual([
      {
        error: {
          class: 'DeviceNotFound',
          desc: `Device 'x' not found`,
          code: 'PORT_NOT_FOUND',
          hint: 'look',
          port: 'x',
        },
      },
    ])
  })
})

describe('events', () => {
  test('go to every session that has negotiated', async () => {
    await connected(1)
    await connected(2)
    io.handlers!.opened(3)
    told(3)
    server.sendEvent('PORT_ADDED', { id: 'a' })
    server.sendEvent('STOP', {})
    for (const connection of [1, 2]) {
      const [added, stopped] = told(connection)
      expect(added).toMatchObject({ event: 'PORT_ADDED', data: { id: 'a' } })
      expect(added.timestamp!.seconds).toBeGreaterThan(1e9)
      expect(Object.keys(stopped).toSorted()).toEqual(['event', 'timestamp'])
    }
    expect(told(3)).toEqual([])
  })

  test('wait for the end of a long answer', async () => {
    const pages = new Map([
      ...COMMANDS,
      ['list', served(() => new Pages([[1, 2], [], [3]]))],
      ['none', served(() => new Pages([]))],
    ])
    await server.close()
    server = new ControlServer('/x', pages, { major: 1, minor: 2, micro: 3 })
    await connected()
    io.drained = async () => server.sendEvent('PORT_ADDED', { id: 'a' })
    await say({ execute: 'list', id: 1 })
    const [answer, ...events] = told()
    expect(answer).toEqual({ return: [1, 2, 3], id: 1 })
    expect(events.map(({ event }) => event)).toEqual(['PORT_ADDED', 'PORT_ADDED'])
    await say({ execute: 'none' })
    expect(told()).toEqual([{ return: [] }])
  })
})

test('a long answer that cannot be begun is an error, and the connection goes on', async () => {
  // oxlint-disable-next-line require-yield -- it does not come that far
  function* pages(): Generator<readonly unknown[]> {
    throw new StateError('QMP_ARGUMENT', 'no')
  }
  await server.close()
  const list = served(() => new Pages(pages()))
  const version = { major: 1, minor: 2, micro: 3 }
  server = new ControlServer('/x', new Map([...COMMANDS, ['list', list]]), version)
  await connected()
  await say({ execute: 'list', id: 7 })
  const error = { class: 'GenericError', desc: 'no', code: 'QMP_ARGUMENT' }
  expect(told()).toEqual([{ error, id: 7 }])
  expect(io.hungUp).toEqual([])
  await say({ execute: 'note', arguments: { text: 'a' } })
  expect(carriedOut).toEqual(['a'])
})

test('a long answer that cannot be continued ends the connection', async () => {
  function* pages(): Generator<readonly unknown[]> {
    yield [1]
    throw new Error('gone')
  }
  await server.close()
  const list = served(() => new Pages(pages()))
  server = new ControlServer('/x', new Map([...COMMANDS, ['list', list]]), {
    major: 1,
    minor: 2,
    micro: 3,
  })
  await connected()
  await say({ execute: 'list' })
  expect(io.hungUp).toEqual([1])
  expect(io.sent.get(1)).toBe('{"return": [1')
  io.sent.clear()
  await say({ execute: 'note', arguments: { text: 'a' } })
  server.sendEvent('STOP', {})
  expect([carriedOut, io.sent.size]).toEqual([[], 0])
})

test('an instance that is to take over listens beside its predecessor until it is told to', () => {
  const version = { major: 1, minor: 2, micro: 3 }
  expect(new ControlServer('/x', COMMANDS, version, true).path).toBe('/x')
  io.isAnswered = true
  const incoming = new ControlServer('/x', COMMANDS, version, true)
  expect(incoming.path).toBe('/x.incoming')
  incoming.takePath()
  expect(incoming.path).toBe('/x')
})

test('the end of the server ends its sessions and its socket, once', async () => {
  await connected()
  await say({ execute: 'take' }, 1, [1_000_001])
  await server.close()
  await server.close()
  expect([closed, io.paths, io.released]).toEqual([[1_000_001], ['/x', 'closed'], true])
})
