/** When a service manager is given signs of life. */
import { expect, test } from 'vitest'
import { watchdogInterval } from '../../../src/daemon/notify.ts'

const PID = 4711

test('half of what the manager waits, for this process only', () => {
  expect(watchdogInterval({ WATCHDOG_USEC: '30000000' }, PID)).toBe(15_000)
  expect(watchdogInterval({ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '4711' }, PID)).toBe(15_000)
  expect(watchdogInterval({ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '4712' }, PID)).toBe(undefined)
})

test('no watchdog, or one that makes no sense, is none', () => {
  for (const text of [undefined, '', '0', '-1', 'soon', '1.5', '1e99']) {
    expect([text, watchdogInterval({ WATCHDOG_USEC: text }, PID)]).toEqual([text, undefined])
  }
})

test('the shortest and the longest are intervals that a timer can have', () => {
  expect(watchdogInterval({ WATCHDOG_USEC: '1' }, PID)).toBe(1)
  expect(watchdogInterval({ WATCHDOG_USEC: '9000000000000000' }, PID)).toBe(2 ** 31 - 1)
})
