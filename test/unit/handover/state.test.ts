/** The state of a switch as records, and as another process reads it again. */
import { expect, test } from 'vitest'
import type { OutgoingRecord } from '../../../src/handover/channel.ts'
import { controlRecord, stateRecords, StateReader } from '../../../src/handover/state.ts'
import type { HandedSwitch } from '../../../src/switch/handed.ts'
import { HANDED } from './world.ts'

const CONTROL = { data: {}, fds: [] }
const ALL = (handed: HandedSwitch): OutgoingRecord[] => [
  controlRecord(CONTROL),
  ...stateRecords(handed),
]

function read(records: Iterable<OutgoingRecord>): ReturnType<StateReader['push']> {
  const reader = new StateReader()
  let whole: ReturnType<StateReader['push']>
  for (const record of records) whole = reader.push(record)
  return whole
}

test('P8: members of multicast groups go over, however many there are', () => {
  const groups = Array.from({ length: 5000 }, (_, n) => [10, 0, 0, 0, 0xef000000 | n, 0, 2600])
  const handed = { ...HANDED, groups }
  const records = ALL(handed)
  expect(records.filter(({ section }) => section === 'groups')).toHaveLength(3)
  expect(read(records)?.switch).toEqual(handed)
})

test('P8: a stream that knows nothing of groups is read, and one that lacks some is not', () => {
  const records = ALL(HANDED)
  const end = records.at(-1)!
  expect(records.map(({ section }) => section)).not.toContain('groups')
  const counts = { ports: 1, macs: 4 }
  const old = [...records.slice(0, -1), { ...end, data: counts }]
  expect(read(old)?.switch.groups).toEqual([])
  const lacking = [...records.slice(0, -1), { ...end, data: { ...counts, groups: 1 } }]
  expect(() => read(lacking)).toThrow('parts of the state are missing')
  const noList = { section: 'groups', data: {}, fds: [] } as const
  expect(() => read([noList])).toThrow('the table of groups is no list')
})

test('ports with and without descriptors keep their order; addresses may be those of the preview', () => {
  const [port] = HANDED.ports
  const bare = (id: string): typeof port => ({ ...port, id, fds: [] })
  const ports = [bare('a'), bare('b'), { ...port, id: 'c' }, bare('d')]
  const handed = { ...HANDED, ports, macs: null, groups: [] }
  const records = ALL(handed)
  expect(records.map(({ section }) => section)).toEqual([
    'control',
    'ports',
    'port',
    'ports',
    'capture',
    'switch',
    'end-of-state',
  ])
  expect(read(records)?.switch).toEqual(handed)
})

test('a rehearsal leaves the control socket to the state, whose it is', () => {
  const reader = new StateReader()
  reader.push(controlRecord({ data: { clients: [] }, fds: [7] }))
  const rehearsed = { ...HANDED, ports: [], captures: [], macs: null }
  for (const [handed, isRehearsed] of [[rehearsed, true] as const, [HANDED, false] as const]) {
    const records = [...stateRecords(handed, isRehearsed)]
    const read = records.map((record) => reader.push(record)).at(-1)
    expect(read).toMatchObject({ isRehearsed, control: { data: { clients: [] }, fds: [7] } })
    expect(reader.takeFds()).toEqual(isRehearsed ? [7] : [])
    if (isRehearsed) reader.push(controlRecord({ data: { clients: [] }, fds: [7] }))
  }
})

test('one reader reads a preview, and then the state', () => {
  const reader = new StateReader()
  for (const handed of [{ ...HANDED, captures: [] }, HANDED]) {
    const read = ALL(handed)
      .map((record) => reader.push(record))
      .at(-1)
    expect(read?.switch).toEqual({ ...handed, groups: [] })
  }
  expect(reader.takeFds()).toEqual([])
})
