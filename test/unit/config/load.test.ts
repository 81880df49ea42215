/** Config files: every error names file, line, column and key. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { loadConfig, parseConfig } from '../../../src/config/load.ts'
import { ConfigError, ConfigErrors } from '../../../src/errors.ts'

function failure(text: string): ConfigError {
  try {
    parseConfig(text, 'x.yaml')
  } catch (error) {
    if (error instanceof ConfigError) return error
    throw error
  }
  throw new Error('was accepted')
}

const explainAll = ({ errors }: ConfigErrors): string =>
  errors
    .map(({ message, hint }) => (hint === undefined ? message : `${message} (${hint})`))
    .join('; ')

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
switch:
  { mac-aging-s: 10, mac-table-size: 1024, group-addresses: 802.1D,
    snooping: { igmp: on, max-groups: 100, max-groups-per-port: 5 } }
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
      snooping: { igmp: true, mld: false, maxGroups: 100, maxGroupsPerPort: 5 },
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
    const config = new URL('../../../config/', import.meta.url).pathname
    const examples = readdirSync(join(config, 'examples')).map((name) => join('examples', name))
    expect(examples.length).toBeGreaterThan(0)
    for (const file of [...examples, 'container/framepump.yaml', 'containerlab/framepump.yaml']) {
      expect(loadConfig(join(config, file)).ports).not.toEqual([])
    }
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
      'x.yaml:1:1: ports: must have at most 1024 entries',
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
    ['pace: quick', 'x.yaml:1:1: pace: must be one of adaptive, busy, interrupt, warm', undefined],
    ['engines: 2', 'x.yaml:1:1: engines: only 1 engine is supported for now', undefined],
    ['ports: 3', 'x.yaml:1:1: ports: must be a list', undefined],
    ['[1, 2]', 'x.yaml:1:1: must be a map of keys', undefined],
    ['just text', 'x.yaml:1:1: must be a map of keys', undefined],
    ['\u0000\u0001\u0002', 'x.yaml:1:1: ', undefined],
    [
      'switch: { group-addresses: [0e, 11] }',
      'x.yaml:1:33: switch.group-addresses[1]: "11" in group-addresses is not an octet from 00 to 0f',
      undefined,
    ],
    [
      'switch: { group-addresses: 802.1d }',
      'x.yaml:1:11: switch.group-addresses: must be one of transparent, 802.1D',
      undefined,
    ],
    [
      'mirrors: [{ name: m, select-all: on, erspan: { remote-ip: 10.0.0.1 } }]',
      'x.yaml:1:38: mirrors[0].erspan: session-id is missing',
      undefined,
    ],
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
      // V9
      'ports:\n  - { id: a, type: tap, tag: 10 }\n  - { id: b, type: tap }\nlinks: [[a, b]]',
      'x.yaml:2:25: ports[0].tag: port "a" is on a link, where it cannot have this',
      'a link passes everything: leave it out, or the link',
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

  test('does not hide the others: all are told, in the order of the file', () => {
    const text = `
pace: quick
ports:
  - { id: a, type: tap, queues: 0, ifnam: x0, mtu: big }
  - { id: a, type: vhost-user, sever: off }
  - { type: pcap, replay: /f, loop: -1 }
  - { id: 9x, type: tun }
  - nothing
switch: { mac-aging-s: 0, mac-table-size: many }
links: [[a, b], [c], [b, b], [a, a, a]]
privileges: { user: '', keep: [all], mode: 3 }
foo: 1
`
    const error = failure(text)
    expect(error).toBeInstanceOf(ConfigErrors)
    const texts = (error as ConfigErrors).errors.map(({ message }) => message)
    expect(texts).toEqual([
      'x.yaml:2:1: pace: must be one of adaptive, busy, interrupt, warm',
      'x.yaml:4:25: ports[0].queues: "queues" must be a number from 1 to 256',
      'x.yaml:4:36: ports[0].ifnam: unknown key "ifnam" for a tap port',
      'x.yaml:4:47: ports[0].mtu: "mtu" must be a number from 68 to 65535',
      `x.yaml:5:5: ports[1].path: Parameter 'path' is missing`,
      'x.yaml:5:7: ports[1].id: "a" is already the id of a port at x.yaml:4:7',
      'x.yaml:5:32: ports[1].sever: unknown key "sever" for a vhost-user port',
      `x.yaml:6:5: ports[2].id: Parameter 'id' is missing`,
      'x.yaml:6:31: ports[2].loop: "loop" must be a number from 0 to 2147483647',
      'x.yaml:7:15: ports[3].type: unknown port type "tun"',
      'x.yaml:8:5: ports[4]: must be a map of keys',
      'x.yaml:9:11: switch.mac-aging-s: must be 1 to 1000000',
      'x.yaml:9:27: switch.mac-table-size: must be a whole number',
      'x.yaml:10:13: links[0][1]: there is no port "b"',
      'x.yaml:10:17: links[1]: must have 2 entries',
      'x.yaml:10:22: links[2]: must not have the same entry twice',
      'x.yaml:10:23: links[2][0]: there is no port "b"',
      'x.yaml:10:26: links[2][1]: there is no port "b"',
      'x.yaml:10:30: links[3]: must have at most 2 entries',
      'x.yaml:10:30: links[3]: must not have the same entry twice',
      'x.yaml:11:15: privileges.user: must not be empty',
      'x.yaml:11:32: privileges.keep[0]: must be one of net-admin, net-raw, sys-admin, sys-ptrace, dac-override',
      'x.yaml:11:38: privileges.mode: must be one of on, locked, off',
      'x.yaml:12:1: foo: unknown key',
    ])
    expect(error.message).toBe(explainAll(error as ConfigErrors))
  })

  test.each([
    'mirrors: [{ name: s, select-all: 7, output-port: b }]',
    'mirrors: [{ name: s, select-all: on, output-vlan: 4095 }]',
    'mirrors: [{ name: s, select-all: on, output-vlan: 1.5 }]',
    'mirrors: [{ name: s, select-all: on, output-port: b, snaplen: 5 }]',
    'mirrors: [{ name: s, select-all: on, output-port: b, select-vlan: 5 }]',
    'mirrors: [{ name: s, select-all: on, output-port: b, select-vlan: [4096] }]',
    'mirrors: [{ name: s, select-all: on, output-port: b, select-vlan: [{ a: 1 }] }]',
    'mirrors: [{ name: s, select-all: on, output-prot: b }]',
    'mirrors: [{ name: s, select-all: on, erspan: { remote-ip: 10.0.0.1, session-id: 1024 } }]',
    'mirrors: [{ name: s, select-all: on, erspan: }]',
    'mirrors: [~]',
    'fdb: [{ mac: x, port: a }]',
    'fdb: [{ mac: 02:00:00:00:00:01, vlan: 4096, port: a }]',
    'fdb: [{ mac: 02:00:00:00:00:01, port: 5 }]',
    'links: [[a, a]]',
    'switch: { group-addresses: 5 }',
    'switch: { snooping: }',
    'privileges: { user: me, keep: 7 }',
  ])('is told once: %s', (text) => {
    const error = failure(`ports: [{ id: a, type: tap }, { id: b, type: tap }]\n${text}\n`)
    expect(error).not.toBeInstanceOf(ConfigErrors)
    expect(error.message).toMatch(/^x\.yaml:2:\d+: /)
  })

  test('of a refused value makes no other: the entry is no other one again', () => {
    const entry = '{ mac: 02:00:00:00:00:01, vlan: 4096, port: z }'
    const error = failure(`ports: []\nfdb: [${entry}, ${entry}]\n`) as ConfigErrors
    const vlan = 'vlan: must be 0 to 4095'
    const port = 'port: there is no port "z"'
    expect(error.errors.map(({ message }) => message.replace(/^\S+ /, ''))).toEqual([
      `fdb[0].${vlan}`,
      `fdb[0].${port}`,
      `fdb[1].${vlan}`,
      `fdb[1].${port}`,
    ])
  })

  test('of a static address is found before anything is changed', () => {
    const locked = (id: string, macs: string, more = ''): string =>
      `  - { id: ${id}, type: tap, locked: on, macs: ['${macs}']${more} }\n`
    const [one, two] = ['02:00:00:00:00:01', '02:00:00:00:00:02']
    const upper = one.replaceAll(':', '-')
    const both = `ports:\n${locked('a', one)}${locked('b', two)}`
    for (const [text, words] of [
      [
        `ports:\n${locked('a', one)}${locked('b', upper)}`,
        `x.yaml:3:37: ports[1].macs: ${one} is static at port "a"`,
      ],
      [
        `ports:\n${locked('a', one, ', tag: 5')}${locked('b', one, ', trunks: [4-6]')}`,
        `ports[1].macs: ${one} in VLAN 5 is static at port "a"`,
      ],
      [`${both}fdb: [{ mac: '${two}', port: a }]`, `fdb[0].mac: ${two} is static at port "b"`],
      [
        `ports:\n${locked('a', '01:00:5e:00:00:01')}`,
        `"01:00:5e:00:00:01" in macs is no sender's address`,
      ],
      [
        `ports:\n${locked('a', '00:00:00:00:00:00')}`,
        `"00:00:00:00:00:00" in macs is no sender's address`,
      ],
      [
        `${both}fdb: [{ mac: '03-00-00-00-00-01', port: a }]`,
        `fdb[0].mac: "03-00-00-00-00-01" in mac is no sender's address`,
      ],
      [`${both}fdb: [{ mac: 'x', port: a }]`, 'fdb[0].mac: "x" in mac is not a MAC address'],
    ] as const) {
      expect(said(text)).toContain(words)
    }
    const inOthers = `ports:\n${locked('a', one, ', tag: 5')}${locked('b', one, ', tag: 6')}`
    expect(
      parseConfig(`${inOthers}fdb: [{ mac: '${one}', port: a, vlan: 5 }]`, 'x').ports,
    ).toHaveLength(2)
  })

  test('in YAML does not hide those in other lines', () => {
    const error = failure('pace: busy\npace: busy\nio: auto\nio: auto\n')
    expect(explainAll(error as ConfigErrors)).toBe(
      'x.yaml:2:1: Map keys must be unique; x.yaml:4:1: Map keys must be unique',
    )
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
      expect(() => loadConfig(join(directory, 'none'))).toThrow(
        /none: cannot be read: No such file or directory$/,
      )
      expect(() => loadConfig(directory)).toThrow(/cannot be read: Is a directory$/)
      const binary = join(directory, 'binary')
      writeFileSync(binary, Buffer.from([0xff, 0xfe, 0, 0x80, 0x3a, 0x0a]))
      expect(() => loadConfig(binary)).toThrow(ConfigError)
    } finally {
      rmSync(directory, { recursive: true })
    }
  })
})
