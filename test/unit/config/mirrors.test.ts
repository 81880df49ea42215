/** Mirrors in config files: what is right, what is refused, and what a reload does with them. */
import { describe, expect, test } from 'vitest'
import { planChanges } from '../../../src/config/diff.ts'
import { parseConfig } from '../../../src/config/load.ts'
import { fromMirror, toMirror } from '../../../src/config/mirrors.ts'
import type { MirrorOptions } from '../../../src/switch/api.ts'

const PORTS = 'ports: [{ id: a, type: tap }, { id: b, type: tap }, { id: mon, type: tap }]\n'

function refusal(text: string): string {
  try {
    parseConfig(PORTS + text, 'x.yaml')
  } catch (error) {
    return (error as Error).message
  }
  return 'nothing'
}

describe('M1: mirrors in a file', () => {
  test('have the names that Open vSwitch has', () => {
    const text = `${PORTS}mirrors:
  - { name: all, select-all: on, output-port: mon, snaplen: 64 }
  - { name: some, select-src-port: [a], select-dst-port: [a, b], select-vlan: [0, 10-12], output-port: mon }
`
    expect(parseConfig(text, 'x.yaml').mirrors).toEqual([
      { name: 'all', selectAll: true, outputPort: 'mon', snapLength: 64 },
      {
        name: 'some',
        selectSrcPort: ['a'],
        selectDstPort: ['a', 'b'],
        selectVlan: [0, '10-12'],
        outputPort: 'mon',
      },
    ])
    const rspan = 'mirrors: [{ name: r, select-all: on, output-vlan: 100 }]'
    expect(parseConfig(PORTS + rspan, 'x.yaml').mirrors).toEqual([
      { name: 'r', selectAll: true, outputVlan: 100 },
    ])
    const erspan = '{ remote-ip: "fd00::1", version: 2, session-id: 7, direction: egress, key: 5 }'
    const tunnel = `mirrors: [{ name: t, select-all: on, erspan: ${erspan} }]`
    const session = { remoteIp: 'fd00::1', version: 2, sessionId: 7, direction: 'egress', key: 5 }
    expect(parseConfig(PORTS + tunnel, 'x.yaml').mirrors).toEqual([
      { name: 't', selectAll: true, erspan: session },
    ])
    const filtered = 'filter: udp, filter-program: "1,6 0 0 1"'
    const some = `mirrors: [{ name: f, select-all: on, output-port: mon, ${filtered} }]`
    const { mirrors = [] } = parseConfig(PORTS + some, 'x.yaml')
    expect(mirrors).toMatchObject([{ filter: 'udp', filterProgram: '1,6 0 0 1' }])
    const facts = { missing: [], frames: 0, bytes: 0 }
    expect(fromMirror({ options: mirrors[0], ...facts })).toEqual({
      name: 'f',
      'select-all': true,
      'output-port': 'mon',
      filter: 'udp',
      'filter-program': '1,6 0 0 1',
      ...facts,
    })
    expect(parseConfig(`${PORTS}mirrors:\n`, 'x.yaml')).not.toHaveProperty('mirrors')
  })

  test.each([
    ['{ name: m, output-port: mon }', 'it selects nothing'],
    ['{ name: m, select-all: off, output-port: mon }', 'it selects nothing'],
    ['{ name: m, select-src-port: [], output-port: mon }', 'it selects nothing'],
    ['{ name: m, select-all: on, select-src-port: [a], output-port: mon }', 'selects all ports'],
    ['{ name: m, select-src-port: [mon], output-port: mon }', 'it selects its own output "mon"'],
    ['{ name: m, select-src-port: [x], output-port: mon }', 'there is no port "x"'],
    ['{ name: m, select-all: on, output-port: nom }', 'there is no port "nom"'],
    ['{ name: 1m, select-all: on, output-port: mon }', '"1m" is not an id'],
    ['{ name: m, select-all: on, output-port: mon, snaplen: 13 }', 'must be 14 to 65535'],
    ['{ name: m, select-all: on, output-port: mon, select-vlan: [4096] }', 'VID'],
    ['{ name: m, select-all: on, output-port: mon, filters: udp }', 'unknown key'],
    ['{ name: m, select-all: on, output-port: mon, filter: [udp] }', 'must be a text'],
    [
      '{ name: m, select-all: on, output-port: mon, filter-program: "1,6 0" }',
      'filter-program: not a filter program: instruction 0 is no "code jt jf k"',
    ],
    ['{ name: m, select-all: on }', 'it has one output: give output-port, output-vlan or erspan'],
    ['{ name: m, select-all: on, output-port: mon, output-vlan: 9 }', 'it has one output'],
    ['{ name: m, select-all: on, output-vlan: 0 }', 'must be 1 to 4094'],
    ['{ name: m, select-all: on, output-vlan: 4095 }', 'must be 1 to 4094'],
    ['{ name: m, select-all: on, output-vlan: ten }', 'must be a whole number'],
    [
      '{ name: m, select-all: on, output-vlan: 9, erspan: { remote-ip: 10.0.0.1, session-id: 1 } }',
      'one output',
    ],
    ['{ name: m, select-all: on, erspan: { remote-ip: 10.0.0.1 } }', 'session-id is missing'],
    [
      '{ name: m, select-all: on, erspan: { remote-ip: host, session-id: 1 } }',
      '"host" is no address',
    ],
    [
      '{ name: m, select-all: on, erspan: { remote-ip: 10.0.0.0/8, session-id: 1 } }',
      'is no address',
    ],
    [
      '{ name: m, select-all: on, erspan: { remote-ip: 239.1.1.1, session-id: 1 } }',
      'no address of one host',
    ],
    [
      '{ name: m, select-all: on, erspan: { remote-ip: "::", session-id: 1 } }',
      'no address of one host',
    ],
    ['{ name: m, select-all: on, erspan: { remote-ip: 10.0.0.1, session-id: 1024 } }', '0 to 1023'],
    [
      '{ name: m, select-all: on, erspan: { remote-ip: 10.0.0.1, session-id: 1, version: 3 } }',
      '1 to 2',
    ],
    [
      '{ name: m, select-all: on, erspan: { remote-ip: 10.0.0.1, session-id: 1, hwid: 1 } }',
      'of type III',
    ],
    [
      '{ name: m, select-all: on, erspan: { remote-ip: 10.0.0.1, session-id: 1, vlan: 1 } }',
      'unknown key',
    ],
  ])('%s: %s', (mirror, why) => {
    expect(refusal(`mirrors: [${mirror}]`)).toContain(why)
    expect(refusal(`mirrors: [${mirror}]`)).toMatch(/^x\.yaml:2:\d+: mirrors\[0\]/)
  })

  test('have names of their own, and no output that is on a link', () => {
    const one = '{ name: m, select-src-port: [a], output-port: mon }'
    expect(refusal(`mirrors: [${one}, ${one}]`)).toContain('"m" is already the name of a mirror')
    expect(refusal(`mirrors: [${one}]\nlinks: [[b, mon]]`)).toContain('port "mon" is on a link')
    expect(refusal(`mirrors: [${one}]\nlinks: [[a, b]]`)).toBe('nothing')
  })
})

test('a mirror is told as it was given', () => {
  const raw = {
    name: 'm',
    'select-src-port': ['a'],
    'select-vlan': [5],
    'output-port': 'mon',
    snaplen: 99,
  }
  const info = { options: toMirror(raw), missing: [], frames: 1, bytes: 2 }
  expect(fromMirror(info)).toEqual({ ...raw, missing: [], frames: 1, bytes: 2 })
  const session = { 'remote-ip': '10.0.0.1', 'session-id': 0, index: 1 }
  const erspan = { name: 'e', 'select-all': true, erspan: session }
  const counters = { tx_frames: 1 }
  const sent = { ...info, options: toMirror(erspan), counters }
  expect(fromMirror(sent)).toMatchObject({ ...erspan, counters })
  const rspan = { name: 'r', 'select-all': true, 'output-vlan': 100 }
  expect(fromMirror({ ...info, options: toMirror(rspan) })).toMatchObject(rspan)
})

test('a reload ends mirrors before anything else and begins new ones last; same ones stay', () => {
  const mirror = (name: string, snapLength?: number): MirrorOptions => ({
    name,
    selectAll: true,
    outputPort: 'mon',
    ...(snapLength === undefined ? {} : { snapLength }),
  })
  const running = {
    ports: [],
    links: [],
    mirrors: [mirror('same'), mirror('other'), mirror('old')],
  }
  const mirrors = [mirror('same'), mirror('other', 64), mirror('new')]
  const desired = { ports: [], links: [['a', 'b'] as const], mirrors }
  expect(planChanges(running, desired)).toEqual([
    { action: 'unmirror', mirror: mirror('other') },
    { action: 'unmirror', mirror: mirror('old') },
    { action: 'link', a: 'a', b: 'b' },
    { action: 'mirror', mirror: mirror('other', 64) },
    { action: 'mirror', mirror: mirror('new') },
  ])
})
