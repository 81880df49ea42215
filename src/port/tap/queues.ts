/**
 * What of an open TAP follows the guest at the other end of a link: the length of its vnet_hdr and
 * which of its queues are attached. The ioctls only; when, is decided in switch/agree.ts, and
 * that nobody reads meanwhile, is seen to in port/tap/shape.ts.
 *
 * A detached queue gets no frames, and a write to it is EIO. Detaching throws away the frames that
 * wait in the queue. Attaching an attached queue and detaching a detached one are EINVAL.
 */
import { IFF_ATTACH_QUEUE, IFF_DETACH_QUEUE, IFNAMSIZ } from '../../abi/if-tun.ts'
import { VNET_HDR_LENGTH, VNET_HDR_TUNNEL_LENGTH } from '../../abi/virtio-net.ts'
import type { Shim } from '../../native/shim.ts'

/** Also of a descriptor that came from another process; what cannot tell is attached. */
export function isAttached(shim: Pick<Shim, 'tunGetIff'>, fd: number): boolean {
  const flags = shim.tunGetIff(fd, new Uint8Array(IFNAMSIZ))
  return flags < 0 || (flags & IFF_DETACH_QUEUE) === 0
}

/** Returns 0 or the errno with which the queue stays as it was. */
export function setAttached(shim: Pick<Shim, 'tunSetQueue'>, fd: number, wanted: boolean): number {
  return Math.max(0, -shim.tunSetQueue(fd, wanted ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE))
}

/**
 * The length is the device's, and on a macvtap the queue's, so every queue is told. Returns 0 or the
 * first errno; what is in force then is to be read back.
 */
export function setVnetHdrLength(
  shim: Pick<Shim, 'tunSetVnetHdrSize'>,
  fds: readonly number[],
  length: number,
): number {
  let errno = 0
  for (const fd of fds) {
    const result = shim.tunSetVnetHdrSize(fd, length)
    if (result < 0 && errno === 0) errno = -result
  }
  return errno
}

/** The vnet_hdr lengths that the data plane can read and write: even, and room for the header. */
export function isUsableVnetHdrLength(length: number): boolean {
  return (
    length === 0 ||
    (length >= VNET_HDR_LENGTH && length % 2 === 0 && length <= VNET_HDR_TUNNEL_LENGTH)
  )
}
