/** Every function of the shim answers a wrong argument type with a TypeError and does nothing. */
import { describe, expect, test } from 'vitest'
import { EINVAL, ENAMETOOLONG } from '../../../src/abi/errno.ts'
import { shim } from '../../../src/native/shim.ts'
import type { Shim } from '../../../src/native/shim.ts'
import { openDescriptors } from './windows.ts'

type Kind = 'number' | 'string' | 'Uint8Array' | 'Int32Array' | 'Int32Array or null' | 'ArrayBuffer'

const number = 'number'
const string = 'string'
const bytes = 'Uint8Array'
const ints = 'Int32Array'

/** The arguments of every function: one that is missing here does not compile. */
const signatures: Record<keyof Shim, readonly Kind[]> = {
  windowMap: [number, number, number, number],
  windowBuffer: [number],
  windowDetach: ['ArrayBuffer'],
  windowUnmap: [number],
  windowAddress: [number],
  windowLength: [number],
  windowFaults: [number],
  windowPart: [number, number, number],
  windowFaultCounter: [],
  copyRows: [number, number, number],
  alikeRows: [number, number, number, number, number, number, number, number],
  gatherFrames: [number, number, number, number, number, number, number, number, number],
  gatherHeads: [number, number, number, number, number, number, number],
  checksumRows: [number, number, number],
  filterCheck: [ints],
  filterFrames: [ints, number, number, number, number],
  filterCompile: [string, ints, bytes],
  markDirty: [number, number, number, number],
  readFrames: [number, number, number, number],
  writeFrames: [number, number, number, number],
  sendFrames: [number, number, number, number],
  readInto: [number, number, number, number],
  preadInto: [number, number, number, number, number],
  writeFrom: [number, number, number, number, number],
  open: [string, number],
  close: [number],
  getStatusFlags: [number],
  setStatusFlags: [number, number],
  getSeals: [number],
  flock: [number, number],
  deviceMajor: [number],
  memfdCreate: [string, number],
  ftruncate: [number, number],
  fileSize: [number],
  eventfd: [number, number],
  eventfdWrite: [number],
  eventfdRead: [number],
  aioSetup: [number],
  aioDestroy: [number],
  aioSignal: [number, number],
  aioReap: [number],
  aioReadFrames: [number, number, number, number, number, number],
  aioWriteFrames: [number, number, number, number, number, number],
  epollCreate: [],
  epollCtl: [number, number, number, number, number],
  epollWait: [number, number, number, number, number],
  poll: [number, number, number],
  clockGettime: [number, number],
  exit: [number],
  socketUnix: [number],
  socketPair: [number, ints],
  bindUnix: [number, string],
  connectUnix: [number, string],
  connectAbstract: [number, string],
  listen: [number, number],
  accept: [number],
  peerCredentials: [number, ints],
  shutdown: [number, number],
  recvMsg: [number, bytes, ints, ints, number],
  sendMsg: [number, bytes, number, number, 'Int32Array or null', number, number],
  bindPacket: [number, number, number],
  packetName: [number, ints],
  socketGre: [number],
  connectIp: [number, bytes],
  getSocketOption: [number, number, number, bytes],
  setSocketOption: [number, number, number, bytes],
  socketPacket: [number],
  netlinkRoute: [number],
  netlinkJoin: [number, number],
  tunOpen: [number, string, string, number, bytes, ints],
  tunGetFeatures: [number],
  tunGetIff: [number, bytes],
  tunSetOffload: [number, number],
  tunGetVnetHdrSize: [number],
  tunSetVnetHdrSize: [number, number],
  tunGetSndbuf: [number],
  tunSetSndbuf: [number, number],
  tunSetQueue: [number, number],
  tunSetPersist: [number, number],
  tunSetOwner: [number, number],
  tunSetGroup: [number, number],
  tunSetCarrier: [number, number],
  tunGetDevNetns: [number],
  uringSetup: [number, bytes],
  uringEnter: [number, number, number, number, number],
  uringRegister: [number, number, number, number, number],
  pidfdGetfd: [number, number],
  pidfdOpen: [number],
  prctl: [number, number, number, number, number],
  capget: [ints],
  capset: [ints],
  seccomp: [number, number, bytes],
  everyThread: [ints, ints],
}

const right: Record<Kind, unknown> = {
  number: -1,
  string: '',
  Uint8Array: new Uint8Array(0),
  Int32Array: new Int32Array(0),
  'Int32Array or null': null,
  ArrayBuffer: new ArrayBuffer(8),
}

const noArrays = [1, 'x', undefined, [], new ArrayBuffer(8), new DataView(new ArrayBuffer(8))]

const wrong: Record<Kind, readonly unknown[]> = {
  number: ['1', undefined, null, true, {}, 1n],
  string: [1, undefined, null, Buffer.from('x'), {}],
  Uint8Array: [...noArrays, null, new Int8Array(8), new Int32Array(8), new Float64Array(8)],
  Int32Array: [...noArrays, null, new Uint32Array(8), new Uint8Array(8), new BigInt64Array(8)],
  'Int32Array or null': [...noArrays, new Float32Array(8), new Uint8Array(8)],
  ArrayBuffer: [1, 'x', undefined, null, {}, new Uint8Array(8)],
}

const functions = shim as unknown as Record<string, (...given: readonly unknown[]) => unknown>

/** What the call throws, null when it returns. */
function thrownBy(call: () => unknown): string | null {
  try {
    call()
    return null
  } catch (error) {
    return String(error)
  }
}

describe('the arguments of the shim', () => {
  test('the shim exports the functions of its contract and no others', () => {
    expect(Object.keys(shim).toSorted()).toEqual(Object.keys(signatures).toSorted())
  })

  test.each(Object.entries(signatures).filter(([, kinds]) => kinds.length > 0))(
    '%s throws a TypeError for each wrong or missing argument',
    (name, kinds) => {
      const call = functions[name]
      const before = openDescriptors()
      kinds.forEach((kind, at) => {
        for (const value of wrong[kind]) {
          const given = kinds.map((kind, k) => (k === at ? value : right[kind]))
          const label = `argument ${at + 1} = ${String(value)}`
          const message = `TypeError: ${name}: argument ${at + 1} must be`
          expect([label, thrownBy(() => call(...given))]).toEqual([
            label,
            expect.stringContaining(message),
          ])
        }
        const tooFew = kinds.slice(0, at).map((kind) => right[kind])
        expect(thrownBy(() => call(...tooFew))).toBe(
          `TypeError: ${name}: argument ${at + 1} must be given`,
        )
      })
      expect(openDescriptors()).toBe(before)
    },
  )

  test('numbers beyond 2^53 and NaN are no lengths and offsets', () => {
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, -1e300, 2 ** 60]) {
      expect(() => shim.windowMap(-1, value, 0, 0)).toThrow(TypeError)
      expect(() => shim.ftruncate(-1, value)).toThrow(TypeError)
    }
  })

  test('strings that are too long or hold a NUL are errors of the call', () => {
    const stage = new Int32Array([7])
    const name = new Uint8Array(16)
    const long = 'x'.repeat(5000)
    for (const [text, errno] of [
      [long, ENAMETOOLONG],
      ['a\0b', EINVAL],
    ] as const) {
      expect(shim.open(text, 0)).toBe(-errno)
      expect(shim.memfdCreate(text, 0)).toBe(-errno)
      expect(shim.bindUnix(-1, text)).toBe(-errno)
      expect(shim.connectUnix(-1, text)).toBe(-errno)
      expect(shim.connectAbstract(-1, text)).toBe(-errno)
      for (const [path, ifname] of [
        [text, 'x'],
        ['/dev/null', text],
      ]) {
        stage[0] = 7
        expect(shim.tunOpen(-1, path, ifname, 0, name, stage)).toBe(-errno)
        expect(stage[0]).toBe(0)
      }
    }
  })

  test('a wrong call leaves the thread able to make a right one', () => {
    expect(() => functions['close']('x')).toThrow(TypeError)
    expect(shim.close(-1)).toBe(-9)
  })
})
