/** H16: streams that older releases have sent are read as long as there are releases. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { readHello } from '../../../src/handover/hello.ts'
import { RecordReader } from '../../../src/handover/records.ts'
import { StateReader } from '../../../src/handover/state.ts'
import type { Handed } from '../../../src/handover/state.ts'
import { EventSignals } from '../../../src/native/event-signals.ts'
import type { ControlPortContext } from '../../../src/port/control-port.ts'
import { takeOverPort } from '../../../src/port/kinds.control.ts'
import type { RecordedRecord } from '../../support/recorded-stream.ts'
import {
  differences,
  read,
  RECORDED,
  recordedReleases,
  recordsOf,
  streamOf,
} from '../../support/recorded-stream.ts'

const NOW = '99.0.0'
/** What is said of descriptors that are none. */
const OF_NO_FILE = /descriptor 1000\d\d\d|Bad file descriptor|No such file|memory cannot be mapped/i

test('the present release is recorded', () => {
  const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string }
  expect(recordedReleases()).toContain(version)
})

describe.each(recordedReleases())('the stream of framepump %s', (release) => {
  const stream = streamOf(release)
  const written = JSON.parse(
    readFileSync(join(RECORDED, `${release}.json`), 'utf8'),
  ) as RecordedRecord[]

  function handed(): Handed {
    const state = new StateReader()
    let whole: Handed | undefined
    for (const record of read(stream, new RecordReader(NOW)).slice(2)) whole = state.push(record)
    return whole!
  }

  test('is what stands beside it', () => {
    expect(recordsOf(stream)).toEqual(written)
  })

  test('is read, with each descriptor at its place', () => {
    const records = read(stream, new RecordReader(NOW))
    expect(records.map(({ section, data, fds }) => ({ section, data, fds: fds.length }))).toEqual(
      written.map(({ section, data, fds }) => ({ section, data, fds })),
    )
    expect(readHello(records[0].data, NOW)).toMatchObject({ release })
  })

  test('is a whole switch, of every kind that can be handed over', () => {
    const { switch: sw, control } = handed()
    const kinds = new Set(sw.ports.map(({ options }) => options.type))
    expect([...kinds].toSorted()).toEqual(['pcap', 'raw-socket', 'tap', 'vhost-user'])
    const { links, mirrors, macs, groups, captures } = sw
    for (const part of [links, mirrors, macs, groups, captures, control.fds]) {
      expect(part?.length).toBeGreaterThan(0)
    }
  })

  test('says of each port what its kind reads: it gets as far as the descriptors', () => {
    for (const port of handed().switch.ports) {
      const context: ControlPortContext = {
        given: new Map(),
        log: () => undefined,
        wake: () => undefined,
        signals: new EventSignals(1),
        stateDirectory: undefined,
        failed: () => undefined,
        takesOver: true,
      }
      expect(() => takeOverPort(port.options, port, context)).toThrow(OF_NO_FILE)
    }
  })
})

test('what is of another make is named', () => {
  const before = { a: 1, b: { c: 'x' }, d: [{ e: 1 }], n: null }
  expect(differences(before, { a: 2, b: { c: 'y' }, d: [], n: 3 })).toEqual([])
  expect(differences(before, { a: '2', b: {}, d: [{ e: 1, f: 2 }], n: 1 })).toEqual([
    '.a: number was recorded, and string is said',
    '.b.c is not said any more',
    '.d[0].f is new',
  ])
  const counters = { rx_frames: 1, rx_of_old: 1 }
  expect(differences(counters, { tx_drop_full: 1, rx_of_new: 1 })).toEqual([
    '.rx_of_old is not said any more',
    '.rx_of_new is new',
  ])
})
