/** framepump ctl: words become what a command takes. */
import { expect, test } from 'vitest'
import { parseArguments } from '../../../src/cli/ctl.ts'
import { toJsonSchema } from '../../../src/schema/json-schema.ts'
import { COMMANDS } from '../../../src/control/commands.ts'

const schemaOf = (name: string): object => {
  const { arguments: members } = COMMANDS.find((one) => one.name === name)!
  return toJsonSchema({ kind: 'map', members })
}
const parse = (command: string, ...words: readonly string[]): unknown =>
  parseArguments(words, schemaOf(command))

test('M1: a list is split at colons, and a map has its keys behind a dot', () => {
  expect(
    parse('mirror-add', 'name=10', 'select-src-port=a:b', 'select-vlan=10:20-30', 'snaplen=64'),
  ).toEqual({
    name: '10',
    'select-src-port': ['a', 'b'],
    'select-vlan': ['10', '20-30'],
    snaplen: 64,
  })
  expect(parse('mirror-add', 'select-src-port=["a"]')).toEqual({ 'select-src-port': ['a'] })
  expect(
    parse('mirror-add', 'select-all=on', 'erspan.remote-ip=10.0.0.1', 'erspan.session-id=7'),
  ).toEqual({ 'select-all': true, erspan: { 'remote-ip': '10.0.0.1', 'session-id': 7 } })
})

test('options of a port are texts, with their dots', () => {
  expect(parseArguments(['id=p', 'storm.broadcast=10', 'trunks=1:2'], {})).toEqual({
    id: 'p',
    'storm.broadcast': '10',
    trunks: '1:2',
  })
})

test('keys that every object has are keys as any other; a map is not said twice', () => {
  for (const name of ['__proto__', 'constructor', 'toString']) {
    const parsed = parse('query-status', `${name}=x`) as object
    expect(Object.entries(parsed)).toEqual([[name, 'x']])
    const inMap = parse('mirror-add', `erspan.${name}=x`) as { erspan: object }
    expect(Object.entries(inMap.erspan)).toEqual([[name, 'x']])
    expect(JSON.stringify(inMap)).toBe(`{"erspan":{"${name}":"x"}}`)
  }
  expect(() => parse('mirror-add', 'erspan=x', 'erspan.remote-ip=10.0.0.1')).toThrow(
    'erspan= is there already, and erspan.remote-ip= says more of it',
  )
  expect(parse('mirror-add', 'erspan={"session-id":7}', 'erspan.remote-ip=10.0.0.1')).toEqual({
    erspan: { 'session-id': 7, 'remote-ip': '10.0.0.1' },
  })
})
