/** What the documentation tells somebody to type, run as it stands. */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { Workplace } from '../../package/project.ts'
import { installFor } from '../../support/installed.ts'
import { Lab } from '../../support/lab.ts'
import { blocksOf, paste, sessionsOf } from '../../support/readme.ts'

const FILES = ['README.md', 'src/cli/README.md', 'src/port/README.md', 'src/daemon/README.md']

const place = new Workplace()
afterAll(() => place.remove())

/** A network behind eth1, whose router is 192.0.2.1. */
const NETWORK = `
ip netns add network
ip link add eth1 type veth peer name eth0 netns network
ip -n network addr add 192.0.2.1/24 dev eth0; ip -n network link set eth0 up`

interface Session {
  /** What is there before, as lines of the shell. */
  readonly before?: () => string
  /** What is typed afterwards to see that it works. */
  readonly after?: string
  /** What is printed then. */
  readonly prints: readonly RegExp[]
  readonly timeoutMs?: number
}

/** What each heading's blocks are expected to give. */
const SESSIONS: Readonly<Record<string, Session>> = {
  'README.md: Try it': {
    // Outside is no network: what npm wants is in its cache.
    before: () => `cd '${place.checkout('checkout')}'; export npm_config_prefer_offline=true`,
    prints: [/ping: 5 of 5 answered/, /frames lost +0; pings lost 0/],
    timeoutMs: 240_000,
  },
  'README.md: A first switch': {
    prints: [/3 received/, /^a +tap +open/m, /^b +tap +open/m, /tx_drop_link_down|down/],
  },
  'README.md: An uplink': {
    before: () => NETWORK,
    after: 'ping -c 3 192.0.2.1',
    prints: [/ 3 received/],
  },
  'src/cli/README.md: A running daemon: `ctl`': {
    prints: [/^a +tap +open/m, /"tx_drop_full"/],
  },
  'src/cli/README.md: Replacing a running instance': {
    prints: [/^frames lost: 0$/m, /^moved: 2 ports \(a, b\)$/m, /^a +tap +open/m],
  },
  'src/cli/README.md: Without a hand-over': {
    prints: [/^a +tap +postponed/m, /^a +tap +open/m],
  },
}

/** File, first line, and why. */
const NOT_RUN: readonly (readonly string[])[] = [
  ['README.md', 'apt-get install gcc make iproute2 iputils-ping', 'it installs packages'],
  ['README.md', 'bash test/setup-debian.sh && npm ci && npm test', 'it would run itself'],
  [
    'README.md',
    'npm install ./framepump-0.1.0.tgz      # from `npm pack` in a checkout; or git+ssh://...',
    'test/package installs the tarball',
  ],
  ['README.md', 'framepump capture -w - | wireshark -k -i -', 'it needs a display'],
  [
    'src/port/README.md',
    'framepump run --port vhost-user,id=vm1,path=/run/vm1.sock --port tap,id=a,ifname=eth0,netns=red,up=on &',
    'a guest needs a disk; test/interop has guests of QEMU',
  ],
  ...[
    'ip addr flush dev eth1; ip link set eth1 up',
    'ip netns add uplink; ip link set eth1 netns uplink; ip -n uplink link set eth1 up',
    'unshare -rn sleep infinity & ns=$!',
  ].map((line) => [
    'src/port/README.md',
    line,
    'test/integration/any-tier/uplink.test.ts runs it, with a network behind eth1',
  ]),
  [
    'src/daemon/README.md',
    'ip tuntap add fp0 mode tap vnet_hdr user alice && ip link set fp0 up     # once, as root',
    'it takes root and another user',
  ],
  [
    'src/daemon/README.md',
    'cp config/systemd/framepump*.service /etc/systemd/system/ && systemctl daemon-reload',
    'it changes the machine; test/integration/any-tier/real-systemd.test.ts runs the unit files',
  ],
  [
    'src/daemon/README.md',
    'docker build -f config/container/Dockerfile -t framepump .',
    'it needs a container engine and a registry',
  ],
]

const sessions = FILES.flatMap((file) =>
  [...sessionsOf(file)].map(([heading, blocks]) => ({ name: `${file}: ${heading}`, blocks })),
)

test('every block is run but these, each for a reason', () => {
  expect(sessions.map(({ name }) => name)).toEqual(Object.keys(SESSIONS))
  const others = FILES.flatMap((file) => blocksOf(file)).filter(
    ({ reason }) => reason !== undefined,
  )
  expect(others.map(({ file, text, reason }) => [file, text.split('\n')[0], reason])).toEqual(
    NOT_RUN,
  )
})

for (const { name, blocks } of sessions) {
  test(`${name}, as it stands`, { timeout: SESSIONS[name]?.timeoutMs ?? 60_000 }, async () => {
    await using lab = new Lab()
    const { before, after, prints } = SESSIONS[name]
    const { exit, stdout, stderr } = await paste(lab, blocks, before?.(), after)
    expect({ exit, stdout, stderr }).toMatchObject({ exit: 0 })
    for (const pattern of prints) expect(stdout).toMatch(pattern)
  })
}

/** As `user` in a directory of its own, where the package is installed. */
async function example(file: string, user: readonly string[]): Promise<string> {
  const [{ text }] = blocksOf(file, 'js')
  await using lab = new Lab()
  installFor(lab)
  mkdirSync(join(lab.directory, 'node_modules'))
  symlinkSync('../package', join(lab.directory, 'node_modules/framepump'))
  writeFileSync(join(lab.directory, 'example.mjs'), text)
  const command = ['setpriv', ...user, process.execPath, 'example.mjs'].join(' ')
  const { exit, stdout, stderr } = await paste(lab, [{ file, heading: '', text: command }])
  expect({ exit, stdout, stderr }).toMatchObject({ exit: 0, stderr: '' })
  return stdout
}

test('the example of the library needs no root', async () => {
  const nobody = ['--reuid=65534', '--regid=65534', '--clear-groups', '--bounding-set=-all']
  const printed = await example('README.md', nobody)
  expect(printed).toMatch(/^b has a frame: .*\b255, +255, +255/s)
  expect(printed).toContain('tx_frames: 1,')
})

test('the longer one has a TAP, a device and a capture', async () => {
  const printed = await example('src/switch/README.md', ['--no-new-privs'])
  expect(printed).toMatch(/^from the device: .*^to the device: .*tx_frames: [23],/ms)
})
