/** rtnetlink messages, byte by byte. rtnetlink(7); linux/netlink.h for the extended ack. */
import { readlinkSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { EINTR, EINVAL, ENODEV, EPERM } from '../../../../src/abi/errno.ts'
import { SysError } from '../../../../src/errors.ts'
import { shim } from '../../../../src/native/shim.ts'
import type { LinkShim } from '../../../../src/port/interface/link.ts'
import {
  changedLinks,
  getLink,
  linkRequest,
  listLinks,
  parseAnswer,
  setLinkProperties,
} from '../../../../src/port/interface/link.ts'

const RTM_NEWLINK = 16
const RTM_GETLINK = 18
const RTM_SETLINK = 19
const NLMSG_ERROR = 2
const NLMSG_DONE = 3
const NLM_F_CAPPED = 0x100
const NLM_F_ACK_TLVS = 0x200
const [IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_INFO_KIND] = [3, 4, 18, 1]
const IFLA_STATS64 = 23
const IFLA_MASTER = 10
const NLA_F_NESTED = 0x8000
const FD = 9

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
const text = (value: string): Uint8Array => new TextEncoder().encode(`${value}\0`)

function u32(...values: number[]): Uint8Array {
  return new Uint8Array(Int32Array.from(values).buffer)
}

function concat(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts))
}

function attribute(type: number, value: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(4 + ((value.length + 3) & ~3))
  new DataView(bytes.buffer).setUint16(0, 4 + value.length, true)
  new DataView(bytes.buffer).setUint16(2, type, true)
  bytes.set(value, 4)
  return bytes
}

function message(type: number, flags: number, ...parts: Uint8Array[]): Uint8Array {
  const body = concat(...parts)
  const head = new Uint8Array(16)
  new DataView(head.buffer).setUint32(0, 16 + body.length, true)
  new DataView(head.buffer).setUint16(4, type, true)
  new DataView(head.buffer).setUint16(6, flags, true)
  return concat(head, body)
}

/** struct ifinfomsg: family, pad, u16 type, index, flags, change. */
const ifinfo = (index: number, flags: number): Uint8Array => u32(0, index, flags, 0)

function link(index: number, flags: number, name: string, ...more: Uint8Array[]): Uint8Array {
  return message(RTM_NEWLINK, 0, ifinfo(index, flags), attribute(IFLA_IFNAME, text(name)), ...more)
}

/**
 * An answer of NLMSG_ERROR to a request, as the kernel makes it: a failed request is echoed whole, a
 * good one by its header; attributes of the extended ack stand behind it.
 */
function ack(errno: number, request: Uint8Array, explanation?: string): Uint8Array {
  const isCapped = errno === 0
  const flags = (isCapped ? NLM_F_CAPPED : 0) | (explanation === undefined ? 0 : NLM_F_ACK_TLVS)
  return message(
    NLMSG_ERROR,
    flags,
    u32(-errno),
    isCapped ? request.slice(0, 16) : request,
    explanation === undefined ? new Uint8Array() : attribute(1, text(explanation)),
  )
}

function parse(bytes: Uint8Array): ReturnType<typeof parseAnswer> {
  // Not at the start of its buffer, as in a receive buffer with several messages.
  const padded = concat(new Uint8Array(8).fill(0xff), bytes, new Uint8Array(8).fill(0xff))
  return parseAnswer(new DataView(padded.buffer, 8, bytes.length))
}

/** A netlink socket with prepared answers. */
class Socket implements LinkShim {
  readonly requests: Uint8Array[] = []
  readonly namespaces: number[] = []
  closed = 0
  readonly #answers: (Uint8Array | number)[]
  readonly #open: number

  constructor(answers: (Uint8Array | number)[], open = FD) {
    this.#answers = answers
    this.#open = open
  }

  netlinkRoute = (netnsFd: number): number => {
    this.namespaces.push(netnsFd)
    return this.#open
  }

  sendMsg = (fd: number, data: Uint8Array, offset: number, length: number): number => {
    expect(fd).toBe(FD)
    this.requests.push(data.slice(offset, offset + length))
    return length
  }

  recvMsg = (fd: number, data: Uint8Array): number => {
    expect(fd).toBe(FD)
    const answer = this.#answers.shift()!
    if (typeof answer === 'number') return answer
    data.set(answer)
    return answer.length
  }

  close = (fd: number): number => {
    expect(fd).toBe(FD)
    this.closed++
    return 0
  }
}

describe('linkRequest', () => {
  test('is a header, an empty ifinfomsg, the name, and attributes padded to four bytes', () => {
    const bytes = linkRequest(RTM_SETLINK, 0x0005, 'x0', [[IFLA_MTU, u32(1500)]])
    expect(hex(bytes)).toBe(
      [
        '30000000', // length 48
        '1300', // RTM_SETLINK
        '0500', // NLM_F_REQUEST | NLM_F_ACK
        '01000000', // sequence number
        '00000000', // port of the sender: the kernel fills it in
        '00000000', // family, pad, type
        '00000000', // index: found by name
        '00000000', // flags
        '00000000', // change
        '0700', // length without padding
        '0300', // IFLA_IFNAME
        '78300000', // "x0", NUL, padding
        '0800',
        '0400', // IFLA_MTU
        'dc050000', // 1500
      ].join(''),
    )
  })

  test('a name that fills its words gets no padding; no name, no attribute', () => {
    expect(hex(linkRequest(RTM_GETLINK, 1, 'eth', []).slice(32))).toBe('0800030065746800')
    expect(linkRequest(RTM_GETLINK, 1, undefined, [])).toHaveLength(32)
  })

  test('15 bytes of name are kept whole, also those of letters beyond ASCII', () => {
    expect(linkRequest(RTM_GETLINK, 1, 'abcdefghijklmno', [])).toHaveLength(32 + 4 + 16)
    const name = linkRequest(RTM_GETLINK, 1, 'ä0', []).slice(36, 40)
    expect([...name]).toEqual([0xc3, 0xa4, 0x30, 0])
  })
})

describe('changedLinks', () => {
  const changed = (bytes: Uint8Array): number[] => {
    const indexes = new Set<number>()
    changedLinks(bytes, bytes.length, indexes)
    return [...indexes]
  }

  test('has the links that came, changed or went, and no others', () => {
    const gone = message(17, 0, ifinfo(9, 0))
    const address = message(20, 0, ifinfo(8, 0))
    const bytes = concat(link(7, 1, 'a'), gone, address, link(7, 1, 'abc'))
    expect(changed(bytes)).toEqual([7, 9])
  })

  test('ends with a message that is cut off or has no length', () => {
    const bytes = concat(link(7, 1, 'a'), link(8, 1, 'b'))
    expect(changed(bytes.subarray(0, 60))).toEqual([7])
    const broken = message(RTM_NEWLINK, 0, ifinfo(5, 0))
    new DataView(broken.buffer).setUint32(0, 0, true)
    expect(changed(concat(broken, link(8, 1, 'b')))).toEqual([5])
  })
})

describe('parseAnswer', () => {
  test('of a link: index, flags, mtu, kind', () => {
    const info = attribute(
      IFLA_LINKINFO | NLA_F_NESTED,
      concat(attribute(IFLA_INFO_KIND, text('macvtap')), attribute(2, u32(1))),
    )
    // u64 each: rx_dropped is the seventh, tx_dropped the eighth.
    const statistics = new BigUint64Array([0n, 0n, 0n, 0n, 0n, 0n, 11n, 2n ** 33n, 99n])
    const dropped = attribute(IFLA_STATS64, new Uint8Array(statistics.buffer))
    const master = attribute(IFLA_MASTER, u32(3))
    const bytes = link(7, 0x1_1003, 'm0', attribute(IFLA_MTU, u32(9000)), info, dropped, master)
    // ifi_type, behind the family.
    bytes[16 + 2] = 1
    expect(parse(bytes)).toEqual({
      errno: 0,
      message: '',
      link: {
        ifindex: 7,
        ifname: 'm0',
        hardware: 1,
        master: 3,
        isUp: true,
        hasCarrier: true,
        mtu: 9000,
        kind: 'macvtap',
        tunQueues: 0,
        rxDropped: 11,
        txDropped: 2 ** 33,
      },
    })
  })

  test('of a link without attributes, that is down', () => {
    const bytes = message(RTM_NEWLINK, 0, ifinfo(1, 0x1002))
    expect(parse(bytes).link).toEqual({
      ifindex: 1,
      ifname: '',
      hardware: 0,
      master: 0,
      isUp: false,
      hasCarrier: false,
      mtu: 0,
      kind: '',
      tunQueues: 0,
      rxDropped: 0,
      txDropped: 0,
    })
  })

  test('attributes that say they are longer than the message, or shorter than a header, end it', () => {
    for (const length of [200, 3, 0]) {
      const broken = attribute(IFLA_MTU, u32(1500))
      new DataView(broken.buffer).setUint16(0, length, true)
      const bytes = link(7, 1, 'x0', broken, attribute(IFLA_MTU, u32(9000)))
      expect(parse(bytes).link).toMatchObject({ ifindex: 7, mtu: 0 })
    }
  })

  test('of success is errno 0', () => {
    expect(parse(ack(0, linkRequest(RTM_SETLINK, 5, 'x0', [])))).toEqual({
      errno: 0,
      message: '',
      link: null,
    })
  })

  test('of a failure has the positive errno', () => {
    expect(parse(ack(ENODEV, linkRequest(RTM_GETLINK, 1, 'x0', [])))).toMatchObject({
      errno: ENODEV,
      message: '',
    })
  })

  test('of a failure has the kernel’s explanation, which stands behind the echoed request', () => {
    const request = linkRequest(RTM_SETLINK, 5, 'x0', [[IFLA_MTU, u32(70_000)]])
    const answer = ack(EINVAL, request, 'mtu greater than device maximum')
    expect(parse(answer)).toMatchObject({
      errno: EINVAL,
      message: 'mtu greater than device maximum',
    })
  })

  test('of a failure whose request is echoed by its header only has it too', () => {
    const request = linkRequest(RTM_SETLINK, 5, 'x0', [])
    const head = request.slice(0, 16)
    const flags = NLM_F_CAPPED | NLM_F_ACK_TLVS
    const answer = message(NLMSG_ERROR, flags, u32(-1), head, attribute(1, text('no')))
    expect(parse(answer)).toMatchObject({ errno: 1, message: 'no' })
  })

  test('of anything else, or of less than a header, is a protocol error', () => {
    expect(parse(message(99, 0))).toMatchObject({ errno: 71, link: null })
    expect(parse(new Uint8Array(3))).toMatchObject({ errno: 71, link: null })
    expect(parse(new Uint8Array())).toMatchObject({ errno: 71, link: null })
  })
})

describe('getLink', () => {
  test('asks the given namespace by name and closes its socket', () => {
    const socket = new Socket([link(3, 1, 'x0')])
    expect(getLink(socket, 12, 'x0')).toMatchObject({ ifindex: 3, isUp: true })
    expect(socket.namespaces).toEqual([12])
    expect(socket.closed).toBe(1)
    expect(socket.requests).toEqual([linkRequest(RTM_GETLINK, 1, 'x0', [])])
  })

  test('knows none of that name when the kernel says ENODEV', () => {
    const socket = new Socket([ack(ENODEV, linkRequest(RTM_GETLINK, 1, 'x0', []))])
    expect(getLink(socket, -1, 'x0')).toBeNull()
    expect(socket.closed).toBe(1)
  })

  test.each([
    ['an answer that is an error', [ack(EPERM, linkRequest(RTM_GETLINK, 1, 'x0', []))], EPERM],
    ['no answer', [-EINTR], EINTR],
  ])('%s is an error with the name, and the socket is closed', (_, answers, errno) => {
    const socket = new Socket(answers)
    expect(() => getLink(socket, -1, 'x0')).toThrow(SysError)
    const again = new Socket([-errno])
    expect(() => getLink(again, -1, 'x0')).toThrow(/^RTM_GETLINK x0: /)
    expect(socket.closed).toBe(1)
  })

  test('a socket that cannot be had is an error, and nothing is closed', () => {
    const socket = new Socket([], -EPERM)
    expect(() => getLink(socket, 5, 'x0')).toThrow('netlink socket: Operation not permitted')
    expect(socket.closed).toBe(0)
  })
})

describe('setLinkProperties', () => {
  const request = (properties: { mtu?: number; up?: boolean }): Uint8Array => {
    const socket = new Socket([ack(0, linkRequest(RTM_SETLINK, 5, 'x0', []))])
    setLinkProperties(socket, -1, 'x0', properties)
    expect(socket.closed).toBe(1)
    return socket.requests[0]
  }
  const word = (bytes: Uint8Array, at: number): number =>
    new DataView(bytes.buffer).getUint32(at, true)

  test('the mtu is an attribute, and flags are left alone', () => {
    const bytes = request({ mtu: 9000 })
    expect(bytes).toEqual(linkRequest(RTM_SETLINK, 5, 'x0', [[IFLA_MTU, u32(9000)]]))
    expect([word(bytes, 24), word(bytes, 28)]).toEqual([0, 0])
  })

  test('up and down change that one flag', () => {
    expect([word(request({ up: true }), 24), word(request({ up: true }), 28)]).toEqual([1, 1])
    expect([word(request({ up: false }), 24), word(request({ up: false }), 28)]).toEqual([0, 1])
  })

  const refusal = (errno: number, explanation?: string): unknown => {
    const answer = ack(errno, linkRequest(RTM_SETLINK, 5, 'x0', []), explanation)
    const socket = new Socket([answer])
    try {
      setLinkProperties(socket, -1, 'x0', { mtu: 70_000 })
    } catch (error) {
      expect(socket.closed).toBe(1)
      return error
    }
    throw new Error('it was taken')
  }

  test('a refusal has the kernel’s words', () => {
    expect(refusal(EINVAL, 'too large')).toMatchObject({
      code: 'LINK',
      message: 'RTM_SETLINK x0: Invalid argument (too large)',
      errno: EINVAL,
      ifname: 'x0',
      hint: undefined,
    })
  })

  test('one for want of a capability says which', () => {
    expect(refusal(EPERM)).toMatchObject({
      message: 'RTM_SETLINK x0: Operation not permitted',
      hint: 'changing an interface needs CAP_NET_ADMIN in its network namespace',
    })
  })
})

describe('listLinks', () => {
  test('collects the links of a dump of several datagrams until its end', () => {
    const socket = new Socket([
      // Each message starts at a multiple of four.
      concat(link(1, 1, 'lo'), link(2, 0, 'x0', attribute(IFLA_MTU, u32(1500)))),
      link(3, 1, 'y0'),
      message(NLMSG_DONE, 0, u32(0)),
    ])
    const links = listLinks(socket, 4)
    expect(links.map(({ ifname, ifindex, mtu }) => [ifname, ifindex, mtu])).toEqual([
      ['lo', 1, 0],
      ['x0', 2, 1500],
      ['y0', 3, 0],
    ])
    expect(socket.namespaces).toEqual([4])
    expect(socket.closed).toBe(1)
  })

  test('the end may stand in the last datagram of links', () => {
    const socket = new Socket([concat(link(1, 1, 'lo'), message(NLMSG_DONE, 0, u32(0)))])
    expect(listLinks(socket, -1)).toHaveLength(1)
  })

  test('an error on the way is thrown, and the socket is closed', () => {
    const socket = new Socket([link(1, 1, 'lo'), -EINTR])
    expect(() => listLinks(socket, -1)).toThrow('RTM_GETLINK: Interrupted system call')
    expect(socket.closed).toBe(1)
  })
})

describe('on this machine', () => {
  test('the loopback is link 1, in the dump as by its name', () => {
    const link = getLink(shim, -1, 'lo')
    expect(link).toMatchObject({ ifindex: 1, kind: '' })
    expect(listLinks(shim, -1).find(({ ifname }) => ifname === 'lo')).toEqual({
      ifname: 'lo',
      ...link,
    })
    expect(getLink(shim, -1, 'no-such-link-0')).toBeNull()
  })

  test('asking leaves this thread in its namespace', () => {
    const before = readlinkSync('/proc/thread-self/ns/net')
    getLink(shim, -1, 'lo')
    expect(readlinkSync('/proc/thread-self/ns/net')).toBe(before)
  })
})
