/** The shim on real TAP devices and namespaces; each test is a process in a network of its own. */
import { spawnSync } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

const shimPath =
  process.env['FRAMEPUMP_SHIM'] ||
  fileURLToPath(new URL('../../../native-shim/build/Release/framepump.node', import.meta.url))

/** Root needs no user namespace; an ordinary user becomes root in one. */
const UNSHARE = process.getuid!() === 0 ? ['-n'] : ['-Urn']

/** What this machine lacks for the tests, or null. */
function missing(): string | null {
  try {
    accessSync('/dev/net/tun', constants.R_OK | constants.W_OK)
  } catch {
    return '/dev/net/tun'
  }
  for (const [command, given] of [
    ['unshare', [...UNSHARE, 'true']],
    ['ip', ['-V']],
  ] as const) {
    if (spawnSync(command, given).status !== 0) return command
  }
  return null
}

/** What every script has: constants of linux/if_tun.h, a way to open a TAP, and `ip`. */
const PRELUDE = `
  const assert = require('node:assert/strict')
  const fs = require('node:fs')
  const { spawn, execFileSync } = require('node:child_process')
  const shim = require(process.env.SHIM)
  const TAP = 0x1002
  const MULTI_QUEUE = 0x100
  const VNET_HDR = 0x4000
  const PERSIST = 0x800
  const EAGAIN = -11, EIO = -5, EBUSY = -16, EINVAL = -22, EBADFD = -77, EEXIST = -17
  const ip = (...given) => execFileSync('ip', given, { encoding: 'utf8' })
  const fds = () => fs.readdirSync('/proc/self/fd').length
  const home = fs.readlinkSync('/proc/thread-self/ns/net')
  const stage = new Int32Array(1)
  const nameOut = new Uint8Array(16)
  const nameText = () => Buffer.from(nameOut).toString().replace(/\\0.*/s, '')
  const openTap = (name, flags = 0, netns = -1) => {
    const fd = shim.tunOpen(netns, '/dev/net/tun', name, TAP | flags, nameOut, stage)
    assert.equal(fs.readlinkSync('/proc/thread-self/ns/net'), home)
    return fd
  }
  const cloexec = (fd) => /^flags:\\s*0*2\\d{6}$/m.test(fs.readFileSync('/proc/self/fdinfo/' + fd, 'utf8'))
  const window = shim.windowMap(-1, 65536, 0, 0)
  const buffer = shim.windowBuffer(window)
  const ints = new Int32Array(buffer)
  const bytes = new Uint8Array(buffer)
`

interface Outcome {
  readonly status: number | null
  readonly stderr: string
}

/** A script that ended by itself without a word: all its assertions held. */
const fine: Outcome = { status: 0, stderr: '' }

function inNamespace(script: string): Outcome {
  const { status, stderr } = spawnSync(
    'unshare',
    [...UNSHARE, process.execPath, '-e', `${PRELUDE}${script}`],
    {
      encoding: 'utf8',
      timeout: 55_000,
      env: { ...process.env, NODE_OPTIONS: '', SHIM: shimPath },
    },
  )
  return { status, stderr }
}

const lacks = missing()

describe.skipIf(lacks !== null)(
  `the shim on TAP devices${lacks ? ` (needs ${lacks})` : ''}`,
  () => {
    test('opens a TAP under the name that the kernel chose and knows it again', () => {
      const outcome = inNamespace(`
      const before = fds()
      const fd = openTap('fpt%d')
      assert(fd >= 0)
      assert.equal(stage[0], 3)
      assert.equal(nameText(), 'fpt0')
      assert.equal(fds(), before + 1)
      assert(cloexec(fd))
      assert.equal(shim.getStatusFlags(fd) & 0o4000, 0o4000)
      nameOut.fill(0)
      assert.equal(shim.tunGetIff(fd, nameOut) & 0xf002, TAP)
      assert.equal(nameText(), 'fpt0')
      ip('link', 'set', 'fpt0', 'name', 'other')
      shim.tunGetIff(fd, nameOut)
      assert.equal(nameText(), 'other')
      assert.equal(openTap('other'), EBUSY)
      assert.equal(stage[0], 2)
      assert.equal(fds(), before + 1)
      assert.equal(shim.close(fd), 0)
      assert.doesNotMatch(ip('link'), /other/)`)
      expect(outcome).toEqual(fine)
    })

    test('keeps a name of 15 bytes whole', () => {
      const outcome = inNamespace(`
      const name = 'abcdefghijklmno'
      assert(openTap(name) >= 0)
      assert.equal(nameText(), name)`)
      expect(outcome).toEqual(fine)
    })

    test('moves frames both ways, in bursts', () => {
      const outcome = inNamespace(`
      const fd = openTap('fpt0')
      // No IPv6 chatter among the frames that are counted.
      fs.writeFileSync('/proc/sys/net/ipv6/conf/fpt0/disable_ipv6', '1')
      ints.set([window, 4096, 60], 256)
      ints.set([fd, 0, 1, -7])
      bytes.fill(0xff, 4096, 4102)
      assert.equal(shim.writeFrames(window, 0, 1, 1024), 0)
      assert.equal(ints[3], EIO)
      ip('link', 'set', 'fpt0', 'up')
      ints.set([fd, 0, 1, -7, fd, 0, 1, -7])
      assert.equal(shim.writeFrames(window, 0, 2, 1024), 2)
      assert.deepEqual([ints[3], ints[7]], [60, 60])
      const stats = JSON.parse(ip('-s', '-j', 'link', 'show', 'fpt0'))[0].stats64
      assert.equal(stats.rx.packets, 2)

      ints.set([window, 8192, 2000, -7, window, 12288, 2000, -7])
      assert.equal(shim.readFrames(fd, window, 0, 2), EAGAIN)
      ip('addr', 'add', '10.9.9.1/24', 'dev', 'fpt0')
      const socket = require('node:dgram').createSocket('udp4')
      ip('neigh', 'add', '10.9.9.2', 'lladdr', '02:00:00:00:00:02', 'dev', 'fpt0')
      socket.send('payload', 9, '10.9.9.2', () => {
        socket.close()
        assert.equal(shim.readFrames(fd, window, 0, 2), 1)
        assert.equal(ints[3], 14 + 20 + 8 + 7)
        assert.equal(ints[7], -7)
        assert.equal(Buffer.from(bytes.subarray(8192, 8198)).toString('hex'), '020000000002')
        assert.equal(Buffer.from(bytes.subarray(8192 + 42, 8192 + 49)).toString(), 'payload')
      })`)
      expect(outcome).toEqual(fine)
    })

    test('sets and reads back header size, send buffer and offloads', () => {
      const outcome = inNamespace(`
      const fd = openTap('fpt0', VNET_HDR)
      assert((shim.tunGetFeatures(fd) & (TAP | VNET_HDR | MULTI_QUEUE)) === (TAP | VNET_HDR | MULTI_QUEUE))
      assert.equal(shim.tunGetVnetHdrSize(fd), 10)
      assert.equal(shim.tunSetVnetHdrSize(fd, 12), 0)
      assert.equal(shim.tunGetVnetHdrSize(fd), 12)
      assert.equal(shim.tunSetVnetHdrSize(fd, 9), EINVAL)
      assert.equal(shim.tunSetSndbuf(fd, 123456), 0)
      assert.equal(shim.tunGetSndbuf(fd), 123456)
      assert.equal(shim.tunSetSndbuf(fd, 0x7fffffff), 0)
      assert.equal(shim.tunGetSndbuf(fd), 0x7fffffff)
      assert.equal(shim.tunSetSndbuf(fd, 0), EINVAL)
      assert.equal(shim.tunSetOffload(fd, 0), 0)
      assert.equal(shim.tunSetOffload(fd, 0x1 | 0x2 | 0x4), 0)
      assert.equal(shim.tunSetOffload(fd, 0x2), EINVAL)`)
      expect(outcome).toEqual(fine)
    })

    test('answers -EBADFD before TUNSETIFF, but tells the features', () => {
      const outcome = inNamespace(`
      const fd = shim.open('/dev/net/tun', 2 | 0o2000000)
      assert(shim.tunGetFeatures(fd) > 0)
      assert.equal(shim.tunGetIff(fd, nameOut), EBADFD)
      assert.equal(shim.tunGetVnetHdrSize(fd), EBADFD)
      assert.equal(shim.tunSetPersist(fd, 1), EBADFD)`)
      expect(outcome).toEqual(fine)
    })

    test('detaches and attaches a queue', () => {
      const outcome = inNamespace(`
      const fd = openTap('fpt0', MULTI_QUEUE)
      const second = openTap('fpt0', MULTI_QUEUE)
      assert(second >= 0)
      assert.equal(shim.tunSetQueue(second, 0x400), 0)
      assert.equal(shim.tunGetIff(second, nameOut) & 0x400, 0x400)
      assert.equal(shim.tunGetIff(fd, nameOut) & 0x400, 0)
      assert.equal(shim.tunSetQueue(second, 0x400), EINVAL)
      assert.equal(shim.tunSetQueue(second, 0x200), 0)
      assert.equal(shim.tunGetIff(second, nameOut) & 0x400, 0)`)
      expect(outcome).toEqual(fine)
    })

    test('makes a device persistent with an owner and a group, and ends that', () => {
      const outcome = inNamespace(`
      const fd = openTap('fpt0')
      assert.equal(shim.tunSetOwner(fd, 0), 0)
      assert.equal(shim.tunSetGroup(fd, 0), 0)
      const info = JSON.parse(ip('-d', '-j', 'link', 'show', 'fpt0'))[0].linkinfo.info_data
      assert.equal(info.user ?? info.owner, 'root')
      assert.equal(info.group, 'root')
      assert.equal(shim.tunSetPersist(fd, 1), 0)
      assert.equal(shim.tunGetIff(fd, nameOut) & PERSIST, PERSIST)
      shim.close(fd)
      assert.match(ip('link'), /fpt0/)
      const again = openTap('fpt0')
      assert.equal(shim.tunSetPersist(again, 0), 0)
      shim.close(again)
      assert.doesNotMatch(ip('link'), /fpt0/)`)
      expect(outcome).toEqual(fine)
    })

    test('takes the carrier away and gives it back', () => {
      const outcome = inNamespace(`
      const fd = openTap('fpt0')
      ip('link', 'set', 'fpt0', 'up')
      const carrier = () => fs.readFileSync('/sys/class/net/fpt0/carrier', 'utf8').trim()
      const hasSysfs = fs.existsSync('/sys/class/net/fpt0')
      const isUp = () => hasSysfs ? carrier() === '1' : !/NO-CARRIER/.test(ip('link', 'show', 'fpt0'))
      assert(isUp())
      assert.equal(shim.tunSetCarrier(fd, 0), 0)
      assert(!isUp())
      assert.equal(shim.tunSetCarrier(fd, 1), 0)
      assert(isUp())`)
      expect(outcome).toEqual(fine)
    })

    test('opens devices and netlink in another namespace and comes back', () => {
      const outcome = inNamespace(`
      const other = spawn('unshare', ['-n', 'sleep', '60'], { stdio: 'ignore' })
      const path = '/proc/' + other.pid + '/ns/net'
      const links = (netns) => {
        const fd = shim.netlinkRoute(netns)
        assert(fd >= 0)
        assert.equal(fs.readlinkSync('/proc/thread-self/ns/net'), home)
        const request = new DataView(new ArrayBuffer(32))
        request.setUint32(0, 32, true)
        request.setUint16(4, 18, true)
        request.setUint16(6, 0x301, true)
        assert.equal(shim.sendMsg(fd, new Uint8Array(request.buffer), 0, 32, null, 0, 0), 32)
        const answer = new Uint8Array(65536)
        const length = shim.recvMsg(fd, answer, new Int32Array(0), new Int32Array(2), 0)
        assert(length > 0)
        shim.close(fd)
        return Buffer.from(answer.subarray(0, length)).toString('latin1')
      }
      try {
        const deadline = Date.now() + 30000
        while (fs.readlinkSync(path) === home) assert(Date.now() < deadline, 'no namespace')
        const netns = shim.open(path, 0o2000000)
        const before = fds()
        const fd = openTap('fpt0', 0, netns)
        assert(fd >= 0)
        assert.equal(fds(), before + 1)
        assert.doesNotMatch(ip('link'), /fpt0/)
        const lives = shim.tunGetDevNetns(fd)
        assert(lives >= 0)
        assert.equal(fs.fstatSync(lives).ino, fs.fstatSync(netns).ino)
        assert.notEqual(fs.fstatSync(lives).ino, fs.statSync('/proc/self/ns/net').ino)
        assert(cloexec(lives))
        shim.close(lives)
        assert.match(links(netns), /fpt0\\0/)
        assert.doesNotMatch(links(-1), /fpt0\\0/)
        assert.equal(openTap('fpt0', 0, netns), EBUSY)
        assert.equal(stage[0], 2)
        assert.equal(fds(), before + 1)
      } finally {
        other.kill('SIGKILL')
      }`)
      expect(outcome).toEqual(fine)
    })

    test('a netlink answer that does not come is waited for two seconds', () => {
      const outcome = inNamespace(`
      const fd = shim.netlinkRoute(-1)
      const before = performance.now()
      assert.equal(shim.recvMsg(fd, bytes, new Int32Array(0), new Int32Array(2), 0), EAGAIN)
      const elapsed = performance.now() - before
      assert(elapsed > 1900, String(elapsed))`)
      expect(outcome).toEqual(fine)
    })
  },
)
