/**
 * The control socket beside a real QEMU's QMP: what odd clients send is answered in the same way, with
 * the same errors, the same ids, and as often.
 */
import { connect } from 'node:net'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Lab } from '../support/lab.ts'
import { isListening, until } from '../support/processes.ts'

const NEGOTIATE = '{"execute":"qmp_capabilities"}'
const GOOD = '{"execute":"stop","id":7}'
const MACHINE = '-M none -nodefaults -display none -monitor none -serial none'
const id = (text: string): string => `{"execute":"stop","id":${text}}`
const withArguments = (command: string, text: string): string =>
  `{"execute":"${command}","arguments":${text},"id":3}`

/** After the negotiation, each followed by what is right. */
const INPUTS: readonly (string | Uint8Array)[] = [
  // Values that are no requests, and what is no value.
  '',
  ' \t\r\n',
  '{}',
  '[]',
  '[1,2]',
  '""',
  '"text"',
  `'text'`,
  '0 ',
  '-1 ',
  '1.5e3 ',
  '1 2 3 ',
  'true ',
  'false',
  'null',
  'nan ',
  'hello ',
  'hello world ',
  'truefalse ',
  'Hello ',
  'None\n',
  '}',
  ']',
  ':',
  ',',
  '}}',
  '{]',
  '[}]',
  '{,}',
  '[,]',
  '[1,]',
  '[1 2]',
  '{"a"}',
  '{"a":}',
  '{5:1}',
  '{"a":1 "b":2}',
  '{"a" 1}',
  '{"a":1,}',
  '{"a":[1}]',
  '{"a":1,"a":2}',
  '{"a":nonsense}',
  '{a:1}',
  '@ ',
  '@x"y" ',
  '@\t',
  '@x\n',
  '@ x y z :',
  '@x\u0001y ',
  '% ',
  '%d ',
  '# c\n',
  '// c\n',
  '/* c */',
  '+1 ',
  '.5 ',
  '- ',
  '1.x ',
  '1e ',
  '1e+ ',
  '01 ',
  '0x10 ',
  '1a ',
  '-a ',
  '--1 ',
  '"a\nb"',
  '"a\tb" ',
  '"a\\\nb"',
  '\u0001',
  '\u000b',
  '\u007f',
  '\ufeff',
  'ä ',
  '{"execute":"st\n',
  '{"execute":"stop","id":[01]}',
  '{"execute" "stop"}',
  '{"execute":"stop",}',
  Uint8Array.of(0xff),
  Uint8Array.of(0xfe, 0x20),
  Uint8Array.of(0x22, 0xff, 0x22),
  Uint8Array.of(0x22, 0xed, 0xa0, 0x80, 0x22),
  Uint8Array.of(0x22, 0xc3, 0x28, 0x22),
  // Ids come back as they are.
  ...['null', 'true', '0', '-0', '9007199254740993', '18446744073709551615'].map(id),
  ...['-9223372036854775808', '1.8446744073709552e+19', '-9.2233720368547758e+18'].map(id),
  ...['1.50', '0.1e1', '1E5', '123456789.125', '1e21', '[]', '{}', '""', '[1,[2,{"a":[]}]]'].map(
    id,
  ),
  ...[
    '{"a":9007199254740993}',
    `'it\\'s'`,
    `'a"b'`,
    '"it\'s"',
    '"\\\'"',
    '"\\/\\b\\f\\n\\r\\t"',
  ].map(id),
  ...['"\\u00e9\\ud83d\\ude00"', '"\u{1f600}é"', '"\\u0000"', '"\\ud83d"', '"\\ude00"'].map(id),
  ...['"\\uzzzz"', '"a\\qb"', '"\\ud83d\\u0041"', '"\u007f"'].map(id),
  id('['.repeat(1000) + ']'.repeat(1000)),
  // Requests that are wrong, with their ids.
  '{"id":3}',
  '{"execute":5,"id":3}',
  '{"execute":null,"id":3}',
  '{"execute":["x"],"id":3}',
  '{"execute":"","id":3}',
  '{"execute":"nope","id":3}',
  '{"execute":"nope"}',
  '{"arguments":{}}',
  '{"execute":"stop","id":3,"foo":1}',
  '{"foo":1,"id":3}',
  '{"exec-oob":"stop","id":3}',
  '{"execute":"constructor","id":3}',
  '{"execute":"__proto__","id":3}',
  ...['[]', 'null', '"x"', '5', 'true', '{"a":1}', '{"__proto__":1}', '{"constructor":1}'].map(
    (text) => withArguments('stop', text),
  ),
  ...[
    '{}',
    '{"name":5,"up":true}',
    '{"name":null,"up":true}',
    '{"name":{},"up":true}',
    '{"name":"x"}',
    '{"up":true}',
    '{"x":1}',
    '{"name":"x","up":true,"z":1}',
    '{"name":"x","up":1}',
    '{"name":"x","up":"true"}',
    '{"name":"x","up":[]}',
    '{"name":"x","up":true}',
    '{"name":"","up":true}',
  ].map((text) => withArguments('set_link', text)),
  ...['{}', '{"id":5}', '{"id":"x"}', '{"id":"x","force":true}'].map((text) =>
    withArguments('netdev_del', text),
  ),
  ...['{"fdname":"x"}', '{"fdname":"1x"}', '{"fdname":5}', '{}'].map((text) =>
    withArguments('getfd', text),
  ),
  ...['{"fdname":"x"}', '{}'].map((text) => withArguments('closefd', text)),
  ...['{"enable":[]}', '{"enable":["oob"]}', '{"enable":5}'].map((text) =>
    withArguments('qmp_capabilities', text),
  ),
  '{"execute":"stop","id":1}{"execute":"cont","id":2}{"execute":"cont","id":3}',
  `{"id":1,"execute":"stop"}\n\n\n{"id":2,"execute":"stop"}`,
]

/** The same before it. */
const FIRST: readonly string[] = [
  '{"execute":"query-status","id":1}',
  '{"execute":"nope","id":1}',
  '{"execute":"set_link","id":1}',
  '{"id":1}',
  'hello ',
  withArguments('qmp_capabilities', '{"enable":[]}'),
  withArguments('qmp_capabilities', '{"enable":"oob"}'),
  withArguments('qmp_capabilities', '{"enable":[1]}'),
  withArguments('qmp_capabilities', '{"enable":[null]}'),
  withArguments('qmp_capabilities', '{"x":1}'),
]

/** Everything that the server says to a client which sends that, up to the answer of the last, GOOD. */
async function said(path: string, ...inputs: (string | Uint8Array)[]): Promise<unknown[]> {
  const socket = connect(path)
  let text = ''
  socket.setEncoding('utf8').on('data', (data: string) => (text += data))
  socket.on('error', () => undefined)
  // QEMU answers nothing any more to a client that says that it has said all.
  for (const input of [...inputs, GOOD]) socket.write(input)
  const isDone = (): boolean => /"id": 7\b.*\r\n/.test(text) || socket.destroyed
  await until(`${path} answers ${String(inputs)}`, isDone)
  socket.destroy()
  return text.split('\r\n').slice(1, -1).map(normalized)
}

/** An integer of 64 bits as text, so that no digit of it is lost; no times, nor what only our errors say. */
function normalized(line: string): unknown {
  const value = JSON.parse(line.replace(/"id": (-?\d{1,20})(?=[,}])/, '"id": "number $1"')) as {
    readonly timestamp?: unknown
    readonly error?: { readonly code?: string; readonly hint?: string; readonly port?: string }
  }
  const { timestamp: _time, ...rest } = value
  if (rest.error === undefined) return rest
  const { code: _code, hint: _hint, port: _port, ...error } = rest.error
  return { ...rest, error }
}

test('odd clients are answered as QEMU answers them', { timeout: 120_000 }, async () => {
  await using lab = new Lab()
  const path = join(lab.directory, 'qmp.sock')
  const daemon = await lab.daemon()
  lab.background('qemu-system-x86_64', [
    ...MACHINE.split(' '),
    '-qmp',
    `unix:${path},server=on,wait=off`,
  ])
  await until('QEMU listens', () => isListening(path))
  expect(INPUTS.length + FIRST.length).toBeGreaterThan(150)
  const differing: unknown[] = []
  const compare = async (...inputs: (string | Uint8Array)[]): Promise<void> => {
    const qemu = await said(path, ...inputs)
    const ours = await said(daemon.control, ...inputs)
    if (JSON.stringify(sorted(qemu)) === JSON.stringify(sorted(ours))) return
    differing.push({ inputs: inputs.map((input) => input.slice(0, 200)), qemu, ours })
  }
  for (const input of FIRST) await compare(input, NEGOTIATE)
  for (const input of INPUTS) await compare(NEGOTIATE, input)
  expect(differing).toEqual([])
})

/** Members by name: their order means nothing. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (value === null || typeof value !== 'object') return value
  const entries = Object.entries(value).map(([key, member]) => [key, sorted(member)] as const)
  return Object.fromEntries(entries.toSorted(([a], [b]) => (a < b ? -1 : 1)))
}
