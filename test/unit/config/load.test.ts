/** Config files: every error names file, line, column and key. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { loadConfig, parseConfig } from '../../../src/config/load.ts'
import { ConfigError } from '../../../src/errors.ts'

function failure(text: string): ConfigError {
  try {
    parseConfig(text, 'x.yaml')
  } catch (error) {
    if (error instanceof ConfigError) return error
    throw error
  }
  throw new Error('was accepted')
}

const said = (text: string): string => failure(text).message

describe('a config file', () => {
  test('may be empty, or a comment, or lists of nothing', () => {
    for (const text of ['', '# nothing\n', '{}', 'ports:\nlinks:\n', 'ports: []\nswitch:\n']) {
      expect(parseConfig(text, 'x.yaml')).toEqual({ ports: [], links: [] })
    }
  })

  test('says everything that the command line can say', () => {
    const text = `
control: /run/x.sock
state-dir: /var/lib/x
engines: 1
pace: busy
io: read-write
switch: { mac-aging-s: 10, mac-table-size: 1024, group-addresses: 802.1D }
ports:
  - { id: a, type: tap, ifname: x0, queues: 2, vnet_hdr: true, script: no }
  - { id: b, type: pcap, replay: /f, loop: 2 }
links:
  - [a, b]
`
    expect(parseConfig(text, 'x.yaml')).toEqual({
      control: '/run/x.sock',
      stateDir: '/var/lib/x',
      pace: 'busy',
      io: 'read-write',
      macAgingS: 10,
      macTableSize: 1024,
      groupAddresses: '802.1D',
      ports: [
        { id: 'a', type: 'tap', ifname: 'x0', queues: 2, vnet_hdr: true, script: 'no' },
        { id: 'b', type: 'pcap', replay: '/f', loop: 2 },
      ],
      links: [['a', 'b']],
    })
  })

  test('has names as they are written, whatever YAML takes them for', () => {
    const names = ['010', '1e3', '0x1f', '1.0', '+7', '-0', '.5', '1e400', '12345678901234567890']
    for (const name of names) {
      const text = `ports: [{ id: a, type: tap, ifname: &n ${name.slice(0, 15)}, netns: ${name} }]`
      const [port] = parseConfig(text, 'x.yaml').ports
      expect(port).toMatchObject({ ifname: name.slice(0, 15), netns: name })
    }
    const aliased = 'ports: [{ id: a, type: tap, ifname: &n 010, netns: *n }]'
    expect(parseConfig(aliased, 'x.yaml').ports[0]).toMatchObject({ netns: '010' })
    const replay = parseConfig(
      'ports: [{ id: a, type: pcap, replay: 1_0e2, loop: 0x10 }]',
      'x.yaml',
    )
    expect(replay.ports[0]).toMatchObject({ replay: '1_0e2', loop: 16 })
    for (const value of ['true', 'null', '[x]', '{ a: b }']) {
      const text = `ports: [{ id: a, type: tap, ifname: ${value} }]`
      expect(said(text)).toMatch(/^x\.yaml:1:\d+: ports\[0\]\.ifname: "ifname" must be a text/)
    }
  })

  test('has no key that every object has', () => {
    for (const key of ['__proto__', 'constructor', 'toString', 'hasOwnProperty']) {
      expect(said(`${key}: { control: /x }\n`)).toContain('unknown key')
      expect(said(`switch: { ${key}: 1 }\n`)).toContain('unknown key')
      expect(said(`ports: [{ type: tap, id: a, ${key}: x }]\n`)).toContain(`unknown key "${key}"`)
      expect(said(`ports: [{ type: ${key}, id: a }]\n`)).toContain('unknown port type')
      expect(said(`ports: [{ ${key}: { type: tap }, id: a }]\n`)).toContain('type')
    }
  })

  test('of the examples is right', () => {
    const directory = new URL('../../../config/examples/', import.meta.url).pathname
    const files = readdirSync(directory)
    expect(files.length).toBeGreaterThan(0)
    for (const file of files) expect(loadConfig(join(directory, file)).ports).not.toEqual([])
  })

  test('of ten thousand lines is read whole, and an error in its last lines is found there', () => {
    const port = (id: string): string =>
      `  - id: ${id}\n    type: tap\n${'    # a comment\n'.repeat(8)}`
    const text = `ports:\n${Array.from({ length: 1000 }, (_, k) => port(`p${k}`)).join('')}`
    expect(parseConfig(text, 'x.yaml').ports).toHaveLength(1000)
    expect(said(`${text}${port('p1')}`)).toBe(
      'x.yaml:10002:5: ports[1000].id: "p1" is already the id of a port at x.yaml:12:5',
    )
  })

  test('has at most as many ports as a switch', () => {
    const ports = Array.from({ length: 9999 }, (_, k) => `  - { id: p${k}, type: tap }`)
    expect(said(['ports:', ...ports].join('\n'))).toBe(
      'x.yaml:1:1: ports: must NOT have more than 1024 items',
    )
  })
})

describe('an error', () => {
  test.each([
    ['ports: [', 'x.yaml:1:9: '],
    ['a: b: c', 'x.yaml:1:4: '],
    ['ports:\n  - id: a\n\ttype: tap', 'x.yaml:3:1: '],
    ['pace: busy\npace: busy', 'x.yaml:2:1: Map keys must be unique'],
    ['ports: *nobody', 'x.yaml:1:'],
  ])('of the YAML in %j is told with its place', (text, place) => {
    expect(said(text)).toContain(place)
    expect(failure(text).code).toBe('CONFIG_SYNTAX')
  })

  test.each([
    ['port: []', 'x.yaml:1:1: port: unknown key', 'did you mean "ports"?'],
    [
      'switch:\n  mac-aging: 3',
      'x.yaml:2:3: switch.mac-aging: unknown key',
      'did you mean "mac-aging-s"?',
    ],
    ['pace: quick', 'x.yaml:1:1: pace: must be one of adaptive, busy, interrupt', undefined],
    ['engines: 2', 'x.yaml:1:1: engines: only 1 engine is supported for now', undefined],
    ['ports: 3', 'x.yaml:1:1: ports: must be array,null', undefined],
    ['[1, 2]', 'x.yaml:1:1: must be object', undefined],
    ['just text', 'x.yaml:1:1: must be object', undefined],
    ['\u0000\u0001\u0002', 'x.yaml:1:1: ', undefined],
    [
      'ports:\n  - id: a\n    type: tap\n    ifnam: x',
      'x.yaml:4:5: ports[0].ifnam: unknown key "ifnam" for a tap port',
      'did you mean "ifname"?',
    ],
    [
      'ports:\n  - { id: a, type: tap, queues: 257 }',
      'x.yaml:2:25: ports[0].queues: "queues" must be a number from 1 to 256',
      undefined,
    ],
    [
      'ports:\n  - { id: a, type: tap }\n  - { id: b, type: tap }\n  - { id: a, type: tap }',
      'x.yaml:4:7: ports[2].id: "a" is already the id of a port at x.yaml:2:7',
      undefined,
    ],
    [
      'ports:\n  - { id: left, type: tap }\nlinks:\n  - [left, lft]',
      'x.yaml:4:12: links[0][1]: there is no port "lft"',
      'did you mean "left"?',
    ],
    [
      'ports:\n  - { id: a, type: tap }\n  - { id: b, type: tap }\nlinks: [[a, b], [b, a]]',
      'x.yaml:4:18: links[1][0]: port "b" is wired already',
      undefined,
    ],
  ])('in %j says where, what and what to do', (text, message, hint) => {
    const error = failure(text)
    expect(error.message).toContain(message)
    expect(error.hint).toBe(hint)
  })

  test('of a file that grows without end by its aliases is told at once', () => {
    const lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x]']
    for (let k = 1; k < 12; k++) {
      lines.push(`a${k}: &a${k} [${Array.from({ length: 9 }, () => `*a${k - 1}`).join(', ')}]`)
    }
    expect(failure(lines.join('\n')).code).toBe('CONFIG_SYNTAX')
  })

  test('of the file itself names it', () => {
    const directory = mkdtempSync('/tmp/framepump-config-')
    try {
      expect(() => loadConfig(join(directory, 'none'))).toThrow(/none: cannot be read: ENOENT$/)
      expect(() => loadConfig(directory)).toThrow(/cannot be read: EISDIR$/)
      const binary = join(directory, 'binary')
      writeFileSync(binary, Buffer.from([0xff, 0xfe, 0, 0x80, 0x3a, 0x0a]))
      expect(() => loadConfig(binary)).toThrow(ConfigError)
    } finally {
      rmSync(directory, { recursive: true })
    }
  })
})
