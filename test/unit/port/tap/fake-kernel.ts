/**
 * A kernel for the open sequence: the shim's calls with answers that a test prepares, and a list of
 * what was called. Descriptors are numbers from 100 on, known to nobody else.
 */
import { ENODEV, EPERM } from '../../../../src/abi/errno.ts'
import { IFF_MULTI_QUEUE, IFF_ONE_QUEUE, IFF_VNET_HDR } from '../../../../src/abi/if-tun.ts'
import type { Shim } from '../../../../src/native/shim.ts'

const NLMSG_ERROR = 2
const RTM_GETLINK = 18

type Calls = {
  [Name in keyof Shim]?: (...args: Parameters<Shim[Name]>) => ReturnType<Shim[Name]>
}

export class FakeKernel {
  readonly calls: string[] = []
  /** Descriptors that are open. */
  readonly open = new Set<number>()
  /** Bytes of vnet_hdr of the device. */
  vnetHdrSize = 10
  /** Flags of the device, as TUNSETIFF set them. */
  flags = 0
  /** What `%d` becomes. */
  number = 0
  features = IFF_ONE_QUEUE | IFF_VNET_HDR | IFF_MULTI_QUEUE
  readonly shim: Shim
  #nextFd = 100
  #name = ''
  #netlinkType = 0

  /** `answers` stand in for the calls of a kernel to which nothing unusual happens. */
  constructor(answers: Calls = {}) {
    const usual: Calls = {
      open: () => this.#newFd(),
      close: (fd) => (this.open.delete(fd) ? 0 : -9),
      tunGetFeatures: () => this.features,
      tunOpen: (_netns, _path, name, flags, nameOut, stageOut) => {
        stageOut[0] = 3
        this.flags = flags
        return this.attach(name, nameOut)
      },
      tunGetIff: (_fd, nameOut) => {
        this.writeName(nameOut, this.#name)
        return this.flags
      },
      tunGetDevNetns: () => -EPERM,
      tunSetOffload: () => 0,
      tunSetVnetHdrSize: (_fd, size) => {
        this.vnetHdrSize = size
        return 0
      },
      tunGetVnetHdrSize: () => this.vnetHdrSize,
      tunSetSndbuf: () => 0,
      tunSetPersist: () => 0,
      tunSetOwner: () => 0,
      tunSetGroup: () => 0,
      tunSetCarrier: () => 0,
      getStatusFlags: () => 0o2,
      setStatusFlags: () => 0,
      netlinkRoute: () => this.#newFd(),
      sendMsg: (_fd, data, offset, length) => {
        this.#netlinkType = new DataView(data.buffer, data.byteOffset).getUint16(offset + 4, true)
        return length
      },
      recvMsg: (_fd, data) => {
        // There is no link of any name, and every change is taken.
        const view = new DataView(data.buffer, data.byteOffset)
        view.setUint32(0, 36, true)
        view.setUint16(4, NLMSG_ERROR, true)
        view.setInt32(16, this.#netlinkType === RTM_GETLINK ? -ENODEV : 0, true)
        view.setUint32(20, 16, true)
        return 36
      },
    }
    const all: Calls = { ...usual, ...answers }
    this.shim = new Proxy({} as Shim, {
      get: (_, name: keyof Shim) => {
        const call = all[name] as ((...args: unknown[]) => unknown) | undefined
        if (call === undefined) throw new Error(`nobody expected ${name}`)
        return (...args: unknown[]) => {
          const shown = args.filter((arg) => typeof arg === 'number' || typeof arg === 'string')
          this.calls.push([name, ...shown].join(' '))
          return call(...args)
        }
      },
    })
  }

  #newFd(): number {
    const fd = this.#nextFd++
    this.open.add(fd)
    return fd
  }

  /** What TUNSETIFF does when nothing is in its way. */
  attach(name: string, nameOut: Uint8Array): number {
    this.#name = name.replace('%d', String(this.number))
    this.writeName(nameOut, this.#name)
    return this.#newFd()
  }

  writeName(nameOut: Uint8Array, name: string): void {
    nameOut.fill(0)
    nameOut.set(new TextEncoder().encode(name))
  }

  /** The calls of these names, in order. */
  callsOf(...names: (keyof Shim)[]): string[] {
    return this.calls.filter((call) => names.includes(call.split(' ')[0] as keyof Shim))
  }
}
