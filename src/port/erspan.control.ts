/** Opening a session of ERSPAN: from options to a raw socket that is connected to the host. raw(7) */
import { EACCES, EAFNOSUPPORT, EPERM } from '../abi/errno.ts'
import { SO_RCVBUF, SO_SNDBUF, SO_SNDBUFFORCE, SOL_SOCKET } from '../abi/if-packet.ts'
import {
  AF_INET,
  AF_INET6,
  IP_MTU_DISCOVER,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPV6_DONTFRAG,
  IPV6_MTU_DISCOVER,
  PMTUDISC_DO,
} from '../abi/ip-socket.ts'
import { strerror } from '../abi/strerror.ts'
import { SysError } from '../errors.ts'
import type { FdClaim } from '../native/owned-fds.ts'
import { claimFd } from '../native/owned-fds.ts'
import type { Shim } from '../native/shim.ts'
import type { ErspanOptions } from './erspan-options.ts'
import { ipAddress } from './erspan-options.ts'
import type { ErspanDescription, ErspanHeader } from './erspan/messages.ts'

/** Bytes on their way out, as the kernel counts them. */
const SNDBUF = 8_388_608
const NEEDS_NET_RAW =
  'it needs CAP_NET_RAW: run as root, or allow it once with setcap cap_net_raw+ep $(readlink -f $(which node)); in a container add NET_RAW'

export class OpenErspan {
  readonly #shim: Shim
  readonly #fd: number
  readonly #claim: FdClaim
  readonly #address: Uint8Array
  readonly #header: ErspanHeader
  readonly #sequence: number

  private constructor(
    shim: Shim,
    fd: number,
    owner: string,
    address: Uint8Array,
    header: ErspanHeader,
    sequence: number,
  ) {
    this.#shim = shim
    this.#fd = fd
    this.#claim = claimFd(fd, owner)
    this.#address = address
    this.#header = header
    this.#sequence = sequence
  }

  /** `owner` for messages; the first frame has that sequence number. Throws SysError ERSPAN. */
  static open(shim: Shim, options: ErspanOptions, owner: string, sequence: number): OpenErspan {
    const address = ipAddress(options.remoteIp)!
    const isIpv6 = address.length > 4
    const fd = shim.socketGre(isIpv6 ? AF_INET6 : AF_INET)
    if (fd < 0) throw notOpened(owner, -fd)
    try {
      configure(shim, fd, isIpv6)
      const result = shim.connectIp(fd, address)
      if (result < 0) throw notReached(owner, options.remoteIp, -result)
    } catch (error) {
      shim.close(fd)
      throw error
    }
    const { version = 1, sessionId, index = 0, direction, hwid = 0, key = -1 } = options
    const header = { version, sessionId, index, hardwareId: hwid, key }
    const isEgress = direction === 'egress'
    return new OpenErspan(shim, fd, owner, address, { ...header, isEgress }, sequence)
  }

  get description(): ErspanDescription {
    return {
      kind: 'erspan',
      fd: this.#fd,
      address: this.#address,
      header: this.#header,
      sequence: this.#sequence,
    }
  }

  /** After the engine let go. */
  close(): void {
    this.#shim.close(this.#fd)
    this.#claim.end()
  }
}

function configure(shim: Shim, fd: number, isIpv6: boolean): void {
  // Who may not have so much has what is allowed.
  const isForced = shim.setSocketOption(fd, SOL_SOCKET, SO_SNDBUFFORCE, i32(SNDBUF)) >= 0
  if (!isForced) shim.setSocketOption(fd, SOL_SOCKET, SO_SNDBUF, i32(SNDBUF))
  // GRE of that host is received as well, and read by nobody: of the least size that there is.
  shim.setSocketOption(fd, SOL_SOCKET, SO_RCVBUF, i32(0))
  if (isIpv6) {
    shim.setSocketOption(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, i32(PMTUDISC_DO))
    shim.setSocketOption(fd, IPPROTO_IPV6, IPV6_DONTFRAG, i32(1))
  } else shim.setSocketOption(fd, IPPROTO_IP, IP_MTU_DISCOVER, i32(PMTUDISC_DO))
}

function notOpened(owner: string, errno: number): SysError {
  let hint: string | undefined
  if (errno === EAFNOSUPPORT) {
    hint = 'this host has no such IP, or RestrictAddressFamilies= of the service lacks it'
  } else if (errno === EPERM || errno === EACCES) hint = NEEDS_NET_RAW
  return new SysError('ERSPAN', `${owner}: cannot open a raw socket for GRE: ${strerror(errno)}`, {
    syscall: 'socket',
    errno,
    hint,
  })
}

function notReached(owner: string, address: string, errno: number): SysError {
  return new SysError('ERSPAN', `${owner}: no way to ${address}: ${strerror(errno)}`, {
    syscall: 'connect',
    errno,
    hint: `the host needs a route: ip route get ${address}`,
  })
}

function i32(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setInt32(0, value, true)
  return bytes
}
