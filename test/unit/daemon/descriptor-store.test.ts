/** What the service manager's store is told, and what a start finds in it. */
import { readFileSync } from 'node:fs'
import { afterEach, expect, test, vi } from 'vitest'
import { DescriptorStore, takeListenFds } from '../../../src/daemon/descriptor-store.ts'
import { claimFd } from '../../../src/native/owned-fds.ts'
import { shim } from '../../../src/native/shim.ts'

afterEach(() => void vi.useRealTimers())

interface Manager {
  readonly store: DescriptorStore
  readonly told: string[]
  readonly log: string[]
  /** Messages for which there is room. */
  room: number
}

function manager({
  came = {},
  isService = true,
  room = Infinity,
}: {
  came?: Record<string, number[]>
  isService?: boolean
  room?: number
} = {}): Manager {
  const told: string[] = []
  const log: string[] = []
  const one: Manager = {
    told,
    log,
    room,
    store: new DescriptorStore(
      (message, fds) => {
        if (one.room === 0) return false
        one.room--
        told.push([message.replaceAll('\n', ' '), ...fds].join(' '))
        return true
      },
      new Map(Object.entries(came)),
      isService,
      (line) => log.push(line),
    ),
  }
  return one
}

const stored = (id: string): string => `FDSTORE=1 FDPOLL=0 FDNAME=tap-${id}`
const removed = (id: string): string => `FDSTOREREMOVE=1 FDNAME=tap-${id}`

test('a port that comes is stored, and removed when it goes', () => {
  const { store, told } = manager()
  store.keep('a', [7, 8])
  store.forget('a')
  store.forget('a')
  store.forget('never')
  expect(told).toEqual([`${stored('a')} 7 8`, removed('a')])
})

test('more descriptors than go with one message', () => {
  const { store, told } = manager()
  const fds = Array.from({ length: 256 }, (_, k) => 100 + k)
  store.keep('a', fds)
  expect(told).toEqual([
    `${stored('a')} ${fds.slice(0, 253).join(' ')}`,
    `${stored('a')} ${fds.slice(253).join(' ')}`,
  ])
})

test('what came with the start is there already; what is opened instead takes its place', () => {
  const { store, told } = manager({ came: { 'tap-a': [3], 'tap-b': [4] } })
  expect(store.take('a')).toEqual([3])
  expect(store.take('a')).toEqual([])
  store.keep('a', [3])
  expect(told).toEqual([])
  expect(store.take('b')).toEqual([4])
  store.forget('b')
  store.keep('b', [9])
  expect(told).toEqual([removed('b'), `${stored('b')} 9`])
})

test('a full queue is tried again, with what is open then', () => {
  vi.useFakeTimers()
  const one = manager({ room: 1 })
  const { store, told } = one
  store.keep('a', [7])
  store.keep('b', [8])
  store.keep('c', [9])
  store.forget('c')
  store.keep('b', [10])
  expect(told).toEqual([`${stored('a')} 7`])
  one.room = Infinity
  vi.runAllTimers()
  // It may have been there in part.
  expect(told.slice(1)).toEqual([removed('b'), `${stored('b')} 10`])
})

test('what another process has is not told any more, nor removed', () => {
  vi.useFakeTimers()
  const one = manager({ room: 1 })
  one.store.keep('a', [7])
  one.store.keep('b', [8])
  one.store.leave('a')
  one.store.leave('b')
  one.room = Infinity
  vi.runAllTimers()
  expect(one.told).toEqual([`${stored('a')} 7`])
})

test('parts of which one was told are told from the beginning', () => {
  vi.useFakeTimers()
  const one = manager({ room: 1 })
  const fds = Array.from({ length: 254 }, (_, k) => 100 + k)
  one.store.keep('a', fds)
  one.room = Infinity
  vi.runAllTimers()
  expect(one.told.map((line) => line.split(' ').slice(0, 2).join(' '))).toEqual([
    'FDSTORE=1 FDPOLL=0',
    'FDSTOREREMOVE=1 FDNAME=tap-a',
    'FDSTORE=1 FDPOLL=0',
    'FDSTORE=1 FDPOLL=0',
  ])
})

test('one that takes over says nothing before it is the service, then all', () => {
  const { store, told } = manager({ isService: false })
  store.keep('a', [7])
  store.keep('b', [8])
  store.forget('b')
  expect(told).toEqual([])
  store.serve()
  store.serve()
  expect(told).toEqual([removed('a'), `${stored('a')} 7`])
})

test('what nobody takes is closed and named; what a port uses by its number is not', () => {
  const [mine, given, gone] = [1, 2, 3].map(() => shim.open('/dev/null', 0))
  const claim = claimFd(given, 'a port')
  const own = shim.eventfd(0, 0)
  const { store, told, log } = manager({ came: { x: [mine], y: [given], z: [own] } })
  store.closeRest()
  expect(log).toEqual(['descriptors: closed what no port has taken name="x" of="/dev/null"'])
  expect(told).toEqual(['FDSTOREREMOVE=1 FDNAME=x'])
  expect(() => readFileSync(`/proc/self/fdinfo/${mine}`)).toThrow('ENOENT')
  claim.end()
  for (const fd of [given, gone, own]) expect(shim.close(fd)).toBe(0)
})

test('LISTEN_FDS counts for the process that it names, and is not inherited', () => {
  const environment = (more: object = {}): NodeJS.ProcessEnv => ({
    LISTEN_PID: '42',
    LISTEN_PIDFDID: '1',
    LISTEN_FDS: '3',
    LISTEN_FDNAMES: 'tap-a:tap-b:tap-a',
    HOME: '/',
    ...more,
  })
  const mine = environment()
  expect([...takeListenFds(mine, 42)]).toEqual([
    ['tap-a', [3, 5]],
    ['tap-b', [4]],
  ])
  expect(mine).toEqual({ HOME: '/' })
  const others = environment()
  expect(takeListenFds(others, 43).size).toBe(0)
  expect(others).toEqual({ HOME: '/' })
  expect([...takeListenFds(environment({ LISTEN_FDNAMES: '' }), 42)]).toEqual([
    ['unknown', [3, 4, 5]],
  ])
  for (const count of ['0', '-1', 'many', '', '1e9']) {
    expect([count, takeListenFds(environment({ LISTEN_FDS: count }), 42).size]).toEqual([count, 0])
  }
})
