/**
 * What users do wrong, in the real process: each time the exit status, the code by which
 * src/errors.md explains it, the name of what it is about, and what to do; never a stack or the system's own shorthand.
 */
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Daemon } from '../../support/lab.ts'
import { CLI, Lab, ROOT } from '../../support/lab.ts'
import { Background, sh } from '../../support/processes.ts'

const codes = readFileSync(join(ROOT, 'src/errors.md'), 'utf8')
/** A stack, an uncaught error, Node's names of numbers and of its calls. */
const RAW =
  /\n +at |node:internal|Error:|\b(E(NOENT|ACCES|PERM|EXIST|NOTDIR|ISDIR|BUSY|INVAL|ROFS|ADDRINUSE|NAMETOOLONG))\b|errno|undefined|\[object/

interface Outcome {
  readonly exit: number
  readonly lines: readonly string[]
}

async function cli(...args: string[]): Promise<Outcome> {
  const run = new Background(process.execPath, [CLI, ...args])
  const exit = await run.exited
  expect(run.stderr).not.toMatch(RAW)
  const lines = run.stderr.split('\n').filter((line) => line.startsWith('framepump: '))
  for (const [, code] of run.stderr.matchAll(/ \[([A-Z_]+)\]$/gm)) {
    expect([code, codes.includes(`\`${code}\``)]).toEqual([code, true])
  }
  return { exit, lines }
}

let lab: Lab
let daemon: Daemon
let netns: string

beforeAll(async () => {
  lab = new Lab()
  netns = lab.netns()
  writeFileSync(join(lab.directory, 'text'), 'no capture\n')
  writeFileSync(join(lab.directory, 'wrong.yaml'), WRONG)
  writeFileSync(join(lab.directory, 'syntax.yaml'), 'pace: busy\npace: busy\nio: auto\nio: auto\n')
  writeFileSync(
    join(lab.directory, 'link.yaml'),
    'ports: [{ id: left, type: tap }]\nlinks: [[left, lfet]]\n',
  )
  mkdirSync(join(lab.directory, 'locked'))
  daemon = await lab.daemon(
    '--port',
    `tap,id=vm1,ifname=x0,netns=${netns}`,
    '--port',
    `vhost-user,id=guest,path=${lab.directory}/guest.sock`,
    '--port',
    `pcap,id=rec,record=${lab.directory}/rec.pcapng`,
  )
})

afterAll(() => lab[Symbol.asyncDispose]())

const WRONG = `pace: quick
ports:
  - { id: a, type: tap, queues: 0, ifnam: x }
  - { id: a, type: vhost-user }
  - { id: b, type: tap, mtu: 5 }
links:
  - [a, zz]
`

/** DIR is the lab's directory, SPACE its namespace. */
const filled = (text: string): string =>
  text.replaceAll('DIR', lab.directory).replaceAll('SPACE', netns)

const run = (...args: string[]): string[] => ['run', '--control', 'DIR/other.sock', ...args]
const port = (...specs: string[]): string[] => run(...specs.flatMap((spec) => ['--port', spec]))

/** Each expected line is `framepump: ` and this; `...` stands for anything. */
const COMMAND_LINES: readonly (readonly [string[], number, readonly string[]])[] = [
  [['shw'], 2, [`unknown command 'shw' (Did you mean show?) [BAD_ARGUMENT]`]],
  [['zzz'], 2, [`unknown command 'zzz' [BAD_ARGUMENT]`]],
  [['run', '--prot', 'x'], 2, [`unknown option '--prot' (Did you mean --port?) [BAD_ARGUMENT]`]],
  [['run', '--io', 'fast'], 2, ['option ...--io ...Allowed choices are auto, ... [BAD_ARGUMENT]']],
  [['run', '--incoming', 'tcp:1'], 2, ['--incoming tcp:1: ... (give unix:PATH, ... [BAD_OPTION]']],
  [['show', 'nothing'], 2, ['...Allowed choices are ports, macs, ... [BAD_ARGUMENT]']],
  [['capture'], 2, [`required option '-w, --write <file>' not specified [BAD_ARGUMENT]`]],
  [['capture', '-w', 'x', '-c', '0'], 2, ['option ...-c, ...above 0. [BAD_ARGUMENT]']],
  [['demo', '--seconds', 'x'], 2, ['option ...--seconds ...above 0. [BAD_ARGUMENT]']],
  [
    ['ctl', 'set_link', 'vm1'],
    2,
    ['"vm1" is not key=value (give key=value words ... [BAD_ARGUMENT]'],
  ],
  [
    ['ctl', 'set_link', '{"name"'],
    2,
    ['not JSON: {"name" (give key=value words or one JSON object) [BAD_ARGUMENT]'],
  ],
  [
    ['ctl', 'query-status', '--control', 'DIR/none/c'],
    3,
    [
      'cannot reach a daemon at DIR/none/c: No such file or directory (start one ... [DAEMON_UNREACHABLE]',
    ],
  ],
  [
    ['show', 'ports', '--control', 'DIR/text'],
    3,
    ['cannot reach a daemon at DIR/text: Connection refused (start one ... [DAEMON_UNREACHABLE]'],
  ],
  [
    port('tap,id=a,foo=1'),
    2,
    ['--port a: unknown key "foo" for a tap port (known are id, ... [BAD_OPTION]'],
  ],
  [
    port('tap,id=a,ifnam=x'),
    2,
    ['--port a: unknown key "ifnam" for a tap port (did you mean "ifname"?) [BAD_OPTION]'],
  ],
  [
    port('tap,ifname=x'),
    2,
    [`--port "tap,ifname=x": Parameter 'id' is missing (every port needs one) [BAD_OPTION]`],
  ],
  [port('tun,id=a'), 2, ['--port a: unknown port type "tun" (it is one of tap, ... [BAD_OPTION]']],
  [port(''), 2, [`--port "": ... [BAD_OPTION]`]],
  [
    port('memory,id=a'),
    2,
    ['--port a: port type "memory" exists in the library API only [BAD_OPTION]'],
  ],
  [port('tap,id=9x'), 2, ['--port 9x: "9x" is not an id (letters, ... [BAD_OPTION]']],
  [port('tap,id=a,up=maybe'), 2, ['--port a: "up" must be on or off, not "maybe" [BAD_OPTION]']],
  [port('tap,id=a,id=b'), 2, ['--port ...: key "id" is given twice in ... [BAD_OPTION]']],
  [
    port('tap,id=a,ifname=a-name-that-is-long'),
    2,
    ['--port a: ifname "a-name-that-is-long" is 19 bytes long, ... [BAD_OPTION]'],
  ],
  [port('tap,id=a', 'tap,id=a'), 2, [`--port a: Duplicate ID 'a' [DUPLICATE_ID]`]],
  [
    port('pcap,id=a'),
    2,
    ['--port a: ...a pcap port needs either replay=FILE or record=FILE [BAD_OPTION]'],
  ],
  [
    port('tap,id=a,queues=0,mtu=1', 'vhost-user,id=b'),
    2,
    [
      '--port a: "queues" must be a number from 1 to 256 [BAD_OPTION]',
      '--port a: "mtu" must be a number from 68 to 65535 [BAD_OPTION]',
      `--port b: Parameter 'path' is missing [BAD_OPTION]`,
    ],
  ],
  [run('--link', 'a'), 2, ['--link a: give two different ports as A,B [BAD_LINK]']],
  [
    [...port('tap,id=left'), '--link', 'left,lfet'],
    2,
    ['--link left,lfet: there is no port "lfet" (did you mean "left"?) [BAD_LINK]'],
  ],
  [run('--user', ':'), 2, ['--user :: give USER or USER:GROUP [BAD_OPTION]']],
  [run('--user', 'nobody-at-all'), 1, ['there is no user "nobody-at-all" ... [PRIVILEGES]']],
  [
    run('--config', 'DIR/none.yaml'),
    2,
    ['DIR/none.yaml: cannot be read: No such file or directory [CONFIG_FILE]'],
  ],
  [run('--config', 'DIR'), 2, ['DIR: cannot be read: Is a directory [CONFIG_FILE]']],
  [
    run('--config', 'DIR/syntax.yaml'),
    2,
    [
      'DIR/syntax.yaml:2:1: Map keys must be unique [CONFIG_SYNTAX]',
      'DIR/syntax.yaml:4:1: Map keys must be unique [CONFIG_SYNTAX]',
    ],
  ],
  [
    [...run('--config', 'DIR/wrong.yaml'), '--port', 'tap,id=c,queues=x'],
    2,
    [
      'DIR/wrong.yaml:1:1: pace: must be one of adaptive, busy, interrupt, warm [CONFIG_KEY]',
      'DIR/wrong.yaml:3:25: ports[0].queues: "queues" must be a number from 1 to 256 [CONFIG_KEY]',
      'DIR/wrong.yaml:3:36: ports[0].ifnam: unknown key "ifnam" ... (did you mean "ifname"?) [CONFIG_KEY]',
      `DIR/wrong.yaml:4:5: ports[1].path: Parameter 'path' is missing [CONFIG_KEY]`,
      'DIR/wrong.yaml:4:7: ports[1].id: "a" is already the id of a port at DIR/wrong.yaml:3:7 [CONFIG_KEY]',
      'DIR/wrong.yaml:5:25: ports[2].mtu: "mtu" must be a number from 68 to 65535 [CONFIG_KEY]',
      'DIR/wrong.yaml:7:9: links[0][1]: there is no port "zz" [CONFIG_KEY]',
      '--port c: "queues" must be a number from 1 to 256 [BAD_OPTION]',
    ],
  ],
  [
    run('--config', 'DIR/link.yaml'),
    2,
    [
      'DIR/link.yaml:2:16: links[0][1]: there is no port "lfet" (did you mean "left"?) [CONFIG_KEY]',
    ],
  ],
  [
    port('tap,id=a,netns=none'),
    1,
    ['port "a": no network namespace "none": No such file or directory (give a name ... [NETNS]'],
  ],
  [
    port('tap,id=a,ifname=x0,netns=SPACE'),
    1,
    [
      'port "a": could not configure /dev/net/tun (x0): Device or resource busy (another process holds x0) [TAP_SETIFF]',
    ],
  ],
  [
    port('tap,id=a,ifname=y0,netns=SPACE', 'tap,id=b,ifname=y0,netns=/run/netns/SPACE'),
    1,
    ['port "b": could not configure ... (port "a" has y0: give another ifname=) [TAP_SETIFF]'],
  ],
  [
    port('tap,id=a,ifname=y0,netns=SPACE', 'tap,id=b,ifname=y0,netns=SPACE,queues=2'),
    1,
    ['port "b": could not configure ... (port "a" has y0: give another ifname=) [TAP_SETIFF]'],
  ],
  [
    port('tap,id=a,netns=SPACE,owner=no-such'),
    2,
    ['port "a": owner=no-such: not in /etc/passwd [BAD_OPTION]'],
  ],
  [
    port('tap,id=a,netns=SPACE,script=DIR/none'),
    1,
    ['port "a": could not launch network script DIR/none: ... [TAP_SCRIPT]'],
  ],
  [
    port('vhost-user,id=a,path=DIR/guest.sock'),
    1,
    [
      'port "a": another process (pid ...) listens on DIR/guest.sock (end it, or give another path=) [VHOST_USER_SOCKET]',
    ],
  ],
  [
    port('vhost-user,id=a,path=DIR/v.sock', 'vhost-user,id=b,path=DIR/./v.sock'),
    1,
    ['port "b": port "a" listens on DIR/./v.sock (give another path=) [VHOST_USER_SOCKET]'],
  ],
  [
    port('vhost-user,id=a,path=DIR/other.sock'),
    1,
    [
      'port "a": the control socket listens on DIR/other.sock (give another path=) [VHOST_USER_SOCKET]',
    ],
  ],
  [
    port('vhost-user,id=a,path=/proc/none/x'),
    1,
    [
      'port "a": vhost-user socket /proc/none/x: its directory /proc/none cannot be made: No such file or directory (make it first, or give another path) [VHOST_USER_SOCKET]',
    ],
  ],
  [
    ['run', '--control', '/proc/none/x'],
    1,
    [
      'control socket /proc/none/x: its directory /proc/none cannot be made: No such file or directory (make it first, or give another path) [CONTROL_SOCKET]',
    ],
  ],
  [
    ['run', '--control', 'DIR/text'],
    1,
    ['DIR/text exists and is not a socket (give another --control path) [CONTROL_IN_USE]'],
  ],
  [
    port('pcap,id=a,record=DIR/c.pcapng', 'pcap,id=b,record=DIR/c.pcapng'),
    1,
    ['port "b": cannot write DIR/c.pcapng: port "a" uses it (give another file) [CAPTURE_FILE]'],
  ],
  [
    port('pcap,id=a,record=DIR/none/c.pcapng'),
    1,
    ['port "a": cannot create DIR/none/c.pcapng: No such file or directory [CAPTURE_FILE]'],
  ],
  [
    port('pcap,id=a,replay=DIR/none'),
    1,
    ['port "a": cannot open DIR/none: No such file or directory [CAPTURE_FILE]'],
  ],
  [port('pcap,id=a,replay=DIR/text'), 2, ['port "a": DIR/text: ... [CAPTURE_FORMAT]']],
]

function pattern(line: string): RegExp {
  const parts = filled(line).split('...')
  return new RegExp(
    `^framepump: ${parts.map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('.*')}$`,
  )
}

test.each(COMMAND_LINES.map(([args, exit, lines]) => ({ args, exit, lines })))(
  'framepump $args',
  async ({ args, exit, lines }) => {
    const outcome = await cli(...args.map(filled))
    expect(outcome).toEqual({
      exit,
      lines: lines.map((line) => expect.stringMatching(pattern(line)) as string),
    })
  },
)

describe('a request that a daemon refuses', () => {
  test.each([
    [['nothing'], 'The command nothing has not been found [QMP_COMMAND]'],
    [
      ['query-port'],
      'The command query-port has not been found (did you mean "query-ports"?) [QMP_COMMAND]',
    ],
    [['set_link', 'name=vm1'], `Parameter 'up' is missing [QMP_ARGUMENT]`],
    [['set_link', 'name=none', 'up=on'], `Device 'none' not found [PORT_NOT_FOUND]`],
    [['netdev_add', 'type=tap', 'id=vm1'], `port "vm1": Duplicate ID 'vm1' [DUPLICATE_ID]`],
    [
      ['netdev_add', 'type=tap', 'id=a', 'queues=0', 'foo=1'],
      'port "a": "queues" must be ... [BAD_OPTION]',
    ],
    [
      ['netdev_add', 'type=tap', 'id=a', 'ifname=x0', 'netns=SPACE'],
      'port "a": could not ...(port "vm1" has x0: give another ifname=) [TAP_SETIFF]',
    ],
    [
      ['netdev_add', 'type=vhost-user', 'id=a', 'path=DIR/guest.sock'],
      'port "a": port "guest" listens on DIR/guest.sock ... [VHOST_USER_SOCKET]',
    ],
    [
      ['capture-start', 'path=DIR/rec.pcapng'],
      'cannot write DIR/rec.pcapng: port "rec" uses it (give another file) [CAPTURE_FILE]',
    ],
    [
      ['capture-start', 'path=DIR/none/x'],
      'cannot create DIR/none/x: No such file or directory [CAPTURE_FILE]',
    ],
    [['capture-stop', 'id=9'], 'there is no capture 9 [NO_CAPTURE]'],
    [['config-reload'], 'there is no config file to reload [NO_CONFIG]'],
    [['closefd', 'fdname=x'], `File descriptor named 'x' not found [NO_FD]`],
  ])('ctl %j', async (words, line) => {
    const outcome = await cli('ctl', '--control', daemon.control, ...words.map(filled))
    expect(outcome).toEqual({ exit: 1, lines: [expect.stringMatching(pattern(line))] })
  })

  test('is answered as QEMU does, with more beside it', async () => {
    const fault = daemon.execute('netdev_add', { type: 'tap', id: 'a', ifname: 'x0', netns })
    await expect(fault).rejects.toMatchObject({
      message: 'could not configure /dev/net/tun (x0): Device or resource busy',
      code: 'TAP_SETIFF',
      port: 'a',
      hint: 'port "vm1" has x0: give another ifname=',
    })
  })

  test('captures and statistics are named and typed', async () => {
    const path = join(lab.directory, 'named.pcapng')
    const { id } = await daemon.execute<{ id: number }>('capture-start', {
      path,
      ports: ['vm1'],
      snaplen: 96,
    })
    expect(await daemon.execute('query-captures')).toEqual([
      {
        id,
        to: path,
        format: 'pcapng',
        direction: 'in',
        ports: ['vm1'],
        'snaplen-bytes': 96,
        frames: 0,
        'dropped-frames': 0,
      },
    ])
    await daemon.execute('capture-stop', { id })
    const text = sh(process.execPath, CLI, 'show', 'stats', '--json', '--control', daemon.control)
    const stats = JSON.parse(text) as {
      ports: Record<string, unknown>[]
      switch: Record<string, unknown>
    }
    expect(stats.ports.map((one) => one['id'])).toEqual(['vm1', 'guest', 'rec'])
    for (const counters of [...stats.ports, stats.switch]) {
      for (const [name, value] of Object.entries(counters)) {
        expect([name, typeof value]).toEqual([name, name === 'id' ? 'string' : 'number'])
      }
    }
  })
})

test('what a reload finds goes to the log with hints and codes, all of it', async () => {
  const file = join(lab.directory, 'reload.yaml')
  writeFileSync(file, 'ports: []\n')
  const other = await lab.daemon('--config', file)
  writeFileSync(file, 'prots: []\npace: quick\n')
  other.process.child.kill('SIGHUP')
  await expect
    .poll(() => other.process.stderr, { timeout: 40_000 })
    .toContain(
      `config: not reloaded error="${file}:1:1: prots: unknown key (did you mean "ports"?) [CONFIG_KEY]; ` +
        `${file}:2:1: pace: must be one of adaptive, busy, interrupt, warm [CONFIG_KEY]"`,
    )
  expect((await cli('ctl', 'config-reload', '--control', other.control)).lines).toHaveLength(1)
})

test('one is one', async () => {
  const checked = (...args: string[]): string =>
    sh(process.execPath, CLI, 'run', '--check', ...args)
  expect(checked('--port', 'tap,id=a')).toBe('1 port, 0 links: valid\n')
  const two = ['--port', 'tap,id=a', '--port', 'tap,id=b', '--link', 'a,b']
  expect(checked(...two)).toBe('2 ports, 1 link: valid\n')
})

test('doctor fails when something that is required is not there, and only then', async () => {
  const doctor = async (script: string): Promise<{ exit: number; text: string }> => {
    const line = `${script} exec "${process.execPath}" "${CLI}" doctor`
    const child = new Background('unshare', ['--mount', '--net', 'sh', '-c', line])
    return { exit: await child.exited, text: child.stdout }
  }
  const lacking = await doctor('mount -t tmpfs none /dev/net &&')
  expect(lacking.text).toMatch(/^NO +tun /m)
  expect(lacking.exit).toBe(1)
  // Without capabilities, and with a TAP that is down: both are no obstacle.
  chmodSync(lab.directory, 0o755)
  const poor = await doctor('ulimit -n 1000; ip tuntap add d0 mode tap; true;')
  expect(poor.text).not.toMatch(/^NO /m)
  expect(poor.text).toMatch(/^- +max open files +1000, enough for few ports/m)
  expect(poor.text).toMatch(/^- +tap d0 +is down +ip link set d0 up/m)
  expect(poor.exit).toBe(0)
})
