/** A log that a front-end writes to as fast as it can. */
import { describe, expect, test } from 'vitest'
import {
  KIND_LINES_MAX,
  LimitedLog,
  SUBJECT_LINES_MAX,
  WINDOW_MS,
} from '../../../src/switch/log-limit.ts'

class Fixture {
  readonly lines: string[] = []
  now = 0
  readonly limited: LimitedLog = new LimitedLog(
    (line) => this.lines.push(line),
    () => this.now,
  )

  /** The lines since the last call. */
  take(): string[] {
    return this.lines.splice(0)
  }
}

describe('a kind of line', () => {
  test('is written so often in a window, then counted', () => {
    const log = new Fixture()
    for (let n = 0; n < 13_000; n++) log.limited.log(`vhost-user g: refused message ${n}`)
    expect(log.take()).toHaveLength(KIND_LINES_MAX)
    log.now = WINDOW_MS
    log.limited.log('vhost-user g: refused message 5')
    expect(log.take()).toEqual([
      `vhost-user g: left out lines=${13_000 - KIND_LINES_MAX} like="refused message #"`,
      'vhost-user g: refused message 5',
    ])
  })

  test('is told when the window ends, also when nothing else is', async () => {
    const lines: string[] = []
    // Near its end already.
    let now = 0
    const limited = new LimitedLog(
      (line) => lines.push(line),
      () => now,
    )
    limited.log('a b: one')
    now = WINDOW_MS - 20
    for (let n = 0; n < 20; n++) limited.log('a b: one')
    await expect.poll(() => lines.at(-1)).toBe('a b: left out lines=11 like="one"')
  })

  test('of one port leaves the other ports and kinds alone', () => {
    const log = new Fixture()
    for (let n = 0; n < 100; n++) log.limited.log(`vhost-user vm1: refused ${n}`)
    log.take()
    log.limited.log('vhost-user vm2: refused 1')
    log.limited.log('vhost-user vm1: state=connected')
    expect(log.take()).toEqual(['vhost-user vm2: refused 1', 'vhost-user vm1: state=connected'])
  })

  test('is the same with other quoted text', () => {
    const log = new Fixture()
    for (let n = 0; n < 100; n++) log.limited.log(`a b: cannot do "${'x'.repeat(n)}"`)
    expect(log.take()).toHaveLength(KIND_LINES_MAX)
  })
})

test('kinds without end are no way around it, and take no memory', () => {
  const log = new Fixture()
  for (let n = 0; n < 100_000; n++) {
    log.limited.log(`vhost-user g: ${n.toString(26).replace(/\d/g, 'z')} is wrong`)
  }
  expect(log.take()).toHaveLength(SUBJECT_LINES_MAX)
  log.limited.flush()
  const told = log.take()
  expect(told.length).toBeLessThanOrEqual(65)
  const count = told.reduce((sum, line) => sum + Number(/lines=(\d+)/.exec(line)![1]), 0)
  expect(count).toBe(100_000 - SUBJECT_LINES_MAX)
})

test('lines have no control characters', () => {
  const log = new Fixture()
  log.limited.log('vhost-user g: \u001b[2J\nvhost-user h: all is well')
  expect(log.take()).toEqual(['vhost-user g: \\u001b[2J\\nvhost-user h: all is well'])
})
