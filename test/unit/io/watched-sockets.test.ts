/** The sockets that may wake the engine: armed once for each sleep, and rid of their errors. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { POLLERR, POLLIN } from '../../../src/abi/epoll.ts'
import { uringLack } from '../../../src/io/probe.ts'
import { ReadWriteTier } from '../../../src/io/read-write-tier.ts'
import type { IoTier, TierEvents } from '../../../src/io/tier.ts'
import { UringTier } from '../../../src/io/uring-tier.ts'
import { WatchedSockets } from '../../../src/io/watched-sockets.ts'
import { Burst } from '../../../src/mem/burst.ts'
import { shim } from '../../../src/native/shim.ts'

const SOCK_DGRAM = 2
const EFD_NONBLOCK_CLOEXEC = 0o2004000
/** Far more than a wake-up takes, far less than a test may. */
const SLEEP_US = 3_000_000

let near: number
let far: number

beforeEach(() => {
  const ends = new Int32Array(2)
  expect(shim.socketPair(SOCK_DGRAM, ends)).toBe(0)
  ;[near, far] = ends
})

afterEach(() => {
  for (const fd of [near, far]) shim.close(fd)
})

const send = (): number => shim.sendMsg(far, new Uint8Array(1), 0, 1, null, 0, 0)
const receive = (): number =>
  shim.recvMsg(near, new Uint8Array(1), new Int32Array(1), new Int32Array(2), 0)

test('a socket that woke has to be armed again', () => {
  const sockets = new WatchedSockets()
  const socket = sockets.add(near)
  socket.isArmed = true
  sockets.woke(socket.id, POLLIN)
  expect(socket.isArmed).toBe(false)
})

test('what is told late of a socket does not reach the next one', () => {
  const sockets = new WatchedSockets()
  const before = sockets.add(near)
  sockets.remove(before)
  const socket = sockets.add(far)
  socket.isArmed = true
  sockets.woke(before.id, POLLIN | POLLERR)
  expect(socket.isArmed).toBe(true)
  const other = sockets.add(near)
  expect(new Set([before.id, socket.id, other.id]).size).toBe(3)
  sockets.woke(12_345, POLLIN)
})

const NO_EVENTS: TierEvents = {
  writeFailed: () => undefined,
  dropped: () => undefined,
  queueFailed: () => undefined,
}
const tiers: [string, (eventFd: number) => IoTier][] = [
  ['read-write', (eventFd) => new ReadWriteTier(eventFd, NO_EVENTS)],
]
if (uringLack() === undefined) {
  tiers.push(['io_uring-multishot', (eventFd) => new UringTier(eventFd, NO_EVENTS)])
}

describe.each(tiers)('tier %s', (_, makeTier) => {
  let tier: IoTier
  let eventFd: number
  const burst = new Burst()

  beforeEach(() => {
    eventFd = shim.eventfd(0, EFD_NONBLOCK_CLOEXEC)
    tier = makeTier(eventFd)
  })

  afterEach(() => {
    tier.close()
    shim.close(eventFd)
  })

  /** Ends a turn asleep; returns the milliseconds that it slept. */
  function sleep(us = SLEEP_US): number {
    const start = performance.now()
    tier.endTurn(us)
    expect(tier.nextBurst(burst)).toBeNull()
    return performance.now() - start
  }

  test('a frame wakes out of the sleep, also one that was there before', () => {
    const socket = tier.watchSocket(near)
    for (let round = 0; round < 5; round++) {
      tier.arm(socket)
      tier.arm(socket)
      send()
      expect(sleep()).toBeLessThan(SLEEP_US / 2000)
      expect(receive()).toBe(1)
      // Nothing of that is left. No time is measured: the end of another ring of this thread, as the
      // probe's, interrupts a system call as a signal does.
      tier.arm(socket)
      socket.isArmed = true
      sleep(20_000)
      expect(socket.isArmed).toBe(true)
    }
    tier.unwatchSocket(socket)
  })

  test('one that is not watched any more wakes nobody', () => {
    const socket = tier.watchSocket(near)
    tier.arm(socket)
    sleep(1000)
    tier.unwatchSocket(socket)
    sleep(1000)
    send()
    socket.isArmed = true
    sleep(50_000)
    expect(socket.isArmed).toBe(true)
    const again = tier.watchSocket(near)
    tier.arm(again)
    expect(sleep()).toBeLessThan(SLEEP_US / 2000)
    tier.unwatchSocket(again)
  })

  test('a socket is let go of when it is closed, whatever was armed', () => {
    const socket = tier.watchSocket(near)
    for (let round = 0; round < 3; round++) {
      tier.arm(socket)
      sleep(1000)
      send()
      sleep(1000)
      expect(receive()).toBe(1)
    }
    tier.arm(socket)
    sleep(1000)
    tier.unwatchSocket(socket)
    shim.close(near)
    // Only when nothing of it is left in the kernel does its other end notice.
    sleep(1000)
    expect(send()).toBeLessThan(0)
  })
})
