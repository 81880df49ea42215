/** Signals to eventfds of which somebody else has a hand. */
import { writeSync } from 'node:fs'
import { expect, test } from 'vitest'
import { EventSignals } from '../../../src/native/event-signals.ts'
import { shim } from '../../../src/native/shim.ts'
import { keepFd, O_NONBLOCK } from './windows.ts'

/** More than a context has requests, also when the kernel rounds up. */
const MANY = 10_000

test.each([
  ['with AIO', () => EventSignals.open()],
  ['without', () => new EventSignals(-38)],
])('each signal is counted, %s', (_how, open) => {
  const signals = open()
  const fds = [0, 1].map(() => keepFd(shim.eventfd(0, O_NONBLOCK)))
  for (let n = 0; n < MANY; n++) signals.signal(fds[n & 1])
  expect(fds.map((fd) => shim.eventfdRead(fd))).toEqual([MANY / 2, MANY / 2])
  signals.close()
})

test('a signal to an eventfd that is full and blocks returns, and the next one elsewhere counts', () => {
  const signals = EventSignals.open()
  expect(signals.neverWaits).toBe(true)
  const full = keepFd(shim.eventfd(0, 0))
  writeSync(full, new BigUint64Array([0xffff_ffff_ffff_fffen]))
  const other = keepFd(shim.eventfd(0, O_NONBLOCK))
  for (let n = 0; n < 3; n++) signals.signal(full)
  signals.signal(other)
  expect(shim.eventfdRead(other)).toBe(1)
  signals.close()
})

test('a descriptor that is not an eventfd is left alone', () => {
  const signals = EventSignals.open()
  const memfd = keepFd(shim.memfdCreate('framepump-test-signals', 1))
  signals.signal(memfd)
  signals.signal(-1)
  expect(shim.poll(memfd, 1, 0)).toBe(1)
  signals.close()
})
