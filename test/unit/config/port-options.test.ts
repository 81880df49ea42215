/** Options of a port: kinds, ranges, and QEMU's conflict rules with their exact texts. */
import { describe, expect, test } from 'vitest'
import { parseNetdev } from '../../../src/config/netdev.ts'
import { OPTION_TABLE } from '../../../src/port/kinds.control.ts'
import { portOptionsFromObject } from '../../../src/config/port-options.ts'
import { ConfigError } from '../../../src/errors.ts'
import type { OptionRule } from '../../../src/schema/value.ts'

function failure(object: Readonly<Record<string, unknown>>): ConfigError {
  try {
    portOptionsFromObject(object)
  } catch (error) {
    if (error instanceof ConfigError) return error
    throw error
  }
  throw new Error('was accepted')
}

const tap = (options: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> => ({
  type: 'tap',
  id: 'a',
  ...options,
})

describe('options', () => {
  test.each([
    ['ifname', 'fp0', 'fp0'],
    ['ifname', 'tap%d', 'tap%d'],
    ['fd', 7, '7'],
    ['fd', 'name', 'name'],
    ['fds', '3:4:5', '3:4:5'],
    ['helper', '/usr/lib/qemu/qemu-bridge-helper', '/usr/lib/qemu/qemu-bridge-helper'],
    ['script', '/bin/up', '/bin/up'],
    ['script', false, 'no'],
    ['downscript', 'no', 'no'],
    ['sndbuf', '1M', 1048576],
    ['sndbuf', '2k', 2048],
    ['sndbuf', 0, 0],
    ['vnet_hdr', 'on', true],
    ['vnet_hdr', 'no', false],
    ['vnet_hdr', true, true],
    ['vhost', 'off', false],
    ['vhostforce', false, false],
    ['queues', '1', 1],
    ['queues', 256, 256],
    ['persist', 'yes', true],
    ['netns', 4711, '4711'],
    ['mtu', 68, 68],
    ['mtu', '65535', 65535],
    ['owner', 'nobody', 'nobody'],
    ['owner', 65534, '65534'],
    ['group', 'nogroup', 'nogroup'],
    ['up', 'false', false],
  ])('tap %s=%s', (key, given, expected) => {
    expect(portOptionsFromObject(tap({ [key]: given }))).toEqual(tap({ [key]: expected }))
  })

  test('of a pcap port', () => {
    const replay = { type: 'pcap', id: 'p', replay: '/a', pace: 'full', loop: 0, mtu: 1500 }
    expect(portOptionsFromObject(replay)).toEqual(replay)
    expect(portOptionsFromObject({ type: 'pcap', id: 'p', record: '/b' })).toEqual({
      type: 'pcap',
      id: 'p',
      record: '/b',
    })
  })

  test.each([
    ['queues', 0, '"queues" must be a number from 1 to 256'],
    ['queues', 257, '"queues" must be a number from 1 to 256'],
    ['queues', '1k', '"queues" must be a number from 1 to 256'],
    ['queues', 1.5, '"queues" must be a number from 1 to 256'],
    ['mtu', 67, '"mtu" must be a number from 68 to 65535'],
    ['mtu', '65536', '"mtu" must be a number from 68 to 65535'],
    ['sndbuf', '1X', '"sndbuf" must be a number from 0 to 9007199254740991'],
    ['sndbuf', -1, '"sndbuf" must be a number from 0 to 9007199254740991'],
    ['sndbuf', '', '"sndbuf" must be a number from 0 to 9007199254740991'],
    ['vnet_hdr', 'maybe', '"vnet_hdr" must be on or off, not "maybe"'],
    ['up', 1, '"up" must be on or off, not 1'],
    ['ifname', ['x'], '"ifname" must be a text, not ["x"]'],
    ['ifname', true, '"ifname" must be a text, not true'],
    ['netns', 1.5, '"netns" must be a text, not 1.5'],
    ['ifname', 'a\0b', '"ifname" must not contain a zero byte'],
  ])('tap %s=%s is refused', (key, given, text) => {
    const error = failure(tap({ [key]: given }))
    expect([error.path, error.message]).toEqual([key, text])
  })

  test.each([
    [{ id: 'a' }, 'type', `Parameter 'type' is missing`],
    [{ type: 'tap' }, 'id', `Parameter 'id' is missing`],
    [{ type: 'bridge', id: 'a' }, 'type', 'unknown port type "bridge"'],
    [{ type: 'constructor', id: 'a' }, 'type', 'unknown port type "constructor"'],
    [{ type: 'memory', id: 'a' }, 'type', 'port type "memory" exists in the library API only'],
    [
      { type: 'virtio-net', id: 'a', driver: 'ping' },
      'driver',
      '"driver" must be one of echo, sink, generate',
    ],
    [{ type: 'vhost-user', id: 'a' }, 'path', `Parameter 'path' is missing`],
    [
      { type: 'vhost-user', id: 'a', path: `/${'x'.repeat(107)}` },
      'path',
      "the path is 108 bytes long, a socket's has at most 107",
    ],
    [{ type: 'tap', id: '1a' }, 'id', '"1a" is not an id'],
    [{ type: 'tap', id: 'a b' }, 'id', '"a b" is not an id'],
    [{ type: 'tap', id: 'a'.repeat(64) }, 'id', `"${'a'.repeat(64)}" is not an id`],
    [{ type: 'tap', id: 'a', ifnam: 'x' }, 'ifnam', 'unknown key "ifnam" for a tap port'],
    [
      { type: 'tap', id: 'a', __proto__x: 1 },
      '__proto__x',
      'unknown key "__proto__x" for a tap port',
    ],
    [{ type: 'pcap', id: 'a' }, 'replay', 'a pcap port needs either replay=FILE or record=FILE'],
    [
      { type: 'pcap', id: 'a', replay: 'x', record: 'y' },
      'replay',
      'a pcap port needs either replay=FILE or record=FILE',
    ],
    [
      { type: 'pcap', id: 'a', record: 'y', loop: 2 },
      'record',
      'pace= and loop= are only valid with replay=',
    ],
  ])('%j is refused', (object, path, text) => {
    const error = failure(object)
    expect([error.path, error.message]).toEqual([path, text])
  })

  test('a misspelt key and a misspelt value name what was meant', () => {
    expect(failure(tap({ ifnam: 'x' })).hint).toBe('did you mean "ifname"?')
    expect(failure(tap({ colour: 'x' })).hint).toContain('known are id, ifname, fd')
    expect(failure({ type: 'pcap', id: 'p', replay: 'x', pace: 'fast' }).message).toBe(
      '"pace" must be one of recorded, full',
    )
  })

  test('the path of an option in a list stands before its key', () => {
    const object = tap({ queues: 0 })
    expect(() => portOptionsFromObject(object, 'ports[2]')).toThrow(
      expect.objectContaining({ path: 'ports[2].queues' }),
    )
  })
})

describe('conflicts, as QEMU words them', () => {
  const withFd =
    'ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, fds=, and vhostfds= are invalid with fd='
  const withFds =
    'ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, and vhostfd= are invalid with fds='
  const withHelper =
    'ifname=, script=, downscript=, vnet_hdr=, queues=, and vhostfds= are invalid with helper='

  test.each([
    ...['ifname=x', 'script=no', 'downscript=no', 'vnet_hdr=on', 'helper=h', 'queues=2'].flatMap(
      (other) => [
        [`fd=3,${other}`, withFd],
        [`fds=3:4,${other}`, withFds],
      ],
    ),
    ['fd=3,fds=4:5', withFd],
    ['fd=3,vhostfds=4', withFd],
    ['fds=3:4,vhostfd=5', withFds],
    ['fds=3:4,vhostfds=5', 'The number of fds passed does not match the number of vhostfds passed'],
    ...['ifname=x', 'script=no', 'downscript=no', 'vnet_hdr=on', 'queues=2', 'vhostfds=3'].map(
      (other) => [`helper=h,${other}`, withHelper],
    ),
    ['vhostfds=3', `vhostfds= is invalid if fds= wasn't specified`],
    ['vhost=off,vhostfd=3', 'vhostfd(s)= is not valid without vhost'],
    ['vhost=off,fds=3,vhostfds=4', 'vhostfd(s)= is not valid without vhost'],
    ['vhost=on', 'vhost-net requested but could not be initialized'],
    ['vhostforce=on', 'vhost-net requested but could not be initialized'],
    ['vhostfd=3', 'vhostfd=, vhostfds= and poll-us= need vhost-net, which framepump has not'],
    ['poll-us=50', 'vhostfd=, vhostfds= and poll-us= need vhost-net, which framepump has not'],
    ['br=br0', 'br= is only valid with helper='],
    ['fd=3,netns=x', 'netns= is invalid with fd=, fds= and helper='],
    ['helper=h,netns=x', 'netns= is invalid with fd=, fds= and helper='],
  ])('tap,id=a,%s', (options, text) => {
    expect(() => parseNetdev(`tap,id=a,${options}`)).toThrow(text)
  })

  test.each(['fd=3', 'fds=3:4', 'helper=h', 'helper=h,br=br1', 'vhost=off', 'vhost=off,queues=4'])(
    'tap,id=a,%s is none',
    (options) => {
      expect(parseNetdev(`tap,id=a,${options}`)).toMatchObject({ type: 'tap', id: 'a' })
    },
  )

  test('more descriptors than a port can have', () => {
    const fds = Array.from({ length: 1025 }, (_, k) => k).join(':')
    expect(failure(tap({ fds })).message).toBe('fds= takes at most 1024 descriptors')
  })
})

describe('interface names', () => {
  test.each(['a', 'x'.repeat(15), 'tap%d', 'äöü', 'eth0.100', 'a-b_c'])('%s is one', (ifname) => {
    expect(portOptionsFromObject(tap({ ifname }))).toEqual(tap({ ifname }))
  })

  test.each(['.', '..', 'a/b', 'a:b', 'a b', 'a\tb', 'tap%s', '%d%d', '100%'])(
    '%j is none',
    (ifname) => {
      expect(failure(tap({ ifname })).message).toBe(`ifname "${ifname}" is not an interface name`)
    },
  )

  test.each([
    ['x'.repeat(16), 16],
    ['ä'.repeat(8), 16],
  ])('%s is too long, counted in bytes', (ifname, bytes) => {
    expect(failure(tap({ ifname })).message).toBe(
      `ifname "${ifname}" is ${bytes} bytes long, the kernel takes 15`,
    )
  })
})

function sample(rule: OptionRule): unknown {
  if (rule.kind === 'list') return rule.words?.[0] ?? (rule.of.format === 'vlans' ? '1' : [])
  if (rule.kind === 'map') return {}
  const samples = { string: 'x', boolean: 'on', size: '100', script: 'no', choice: '', integer: '' }
  const choice = rule.values?.[0] ?? String(rule.range?.[0])
  return ['choice', 'integer'].includes(rule.kind) ? choice : samples[rule.kind]
}

test('every option of the table is read by its own name', () => {
  for (const [type, rules] of Object.entries(OPTION_TABLE)) {
    for (const [key, rule] of Object.entries(rules)) {
      const value = sample(rule)
      // Alone an option may be in conflict with what is missing; what it is not, is unknown.
      try {
        portOptionsFromObject({ type, id: 'a', [key]: value })
      } catch (error) {
        expect((error as Error).message).not.toMatch(/unknown|must be/)
      }
    }
  }
})

describe('options of a raw-socket port', () => {
  test('are taken', () => {
    const spec =
      'raw-socket,id=a,ifname=eth1,netns=red,queues=4,promisc=off,vnet_hdr=off,bypass=on,ring-kb=256,mtu=9000,gro=off'
    expect(parseNetdev(spec)).toEqual({
      type: 'raw-socket',
      id: 'a',
      ifname: 'eth1',
      netns: 'red',
      queues: 4,
      promisc: false,
      vnet_hdr: false,
      bypass: true,
      'ring-kb': 256,
      mtu: 9000,
      gro: false,
    })
    expect(parseNetdev('raw-socket,id=a,fd=7,promisc=off')).toMatchObject({ fd: '7' })
  })

  test.each([
    ['ifname=u0,queues=0', 'queues', 'must be'],
    ['ifname=u0,queues=65', 'queues', 'must be'],
    ['ifname=u0,queues=two', 'queues', 'must be'],
    ['ifname=u0,ring-kb=255', 'ring-kb', 'must be'],
    ['ifname=u0,ring-kb=1048577', 'ring-kb', 'must be'],
    ['ifname=u0,vnet_hdr=maybe', 'vnet_hdr', ''],
    ['promisc=on', 'ifname', `Parameter 'ifname' is missing`],
    ['ifname=', 'ifname', `Parameter 'ifname' is missing`],
    ['ifname=u%d', 'ifname', 'ifname "u%d" is not an interface name'],
    ['ifname=abcdefghijklmnop', 'ifname', 'bytes long'],
    ['ifname=a/b', 'ifname', ''],
    ['ifname=u0,fd=7', 'fd', 'ifname= cannot be given with fd=, which says all of it'],
    ['fd=7,queues=2,netns=x', 'fd', 'netns=, queues= cannot be given with fd='],
    ['ifname=u0,sndbuf=1', 'sndbuf', 'unknown key "sndbuf" for a raw-socket port'],
  ])('are refused: %s', (options, path, text) => {
    let error: unknown
    try {
      parseNetdev(`raw-socket,id=a,${options}`)
    } catch (thrown) {
      error = thrown
    }
    expect(error).toBeInstanceOf(ConfigError)
    expect((error as ConfigError).message).toContain(text)
    expect((error as ConfigError).path).toContain(path)
  })
})
