/** The sockets that may wake the engine, of either tier. */
import { POLLERR } from '../abi/epoll.ts'
import { SO_ERROR, SOL_SOCKET } from '../abi/if-packet.ts'
import { shim } from '../native/shim.ts'
import type { WatchedSocket } from './tier.ts'

/** What a tier has room for beside the kind of an event. */
const ID_MASK = 0xfff_ffff

export class WatchedSockets {
  /**
   * By their numbers, which are not used again soon: what the kernel says late of a socket must not be
   * taken for the next one, which would be armed twice then, and be left in the kernel when it is closed.
   */
  readonly #sockets = new Map<number, WatchedSocket>()
  readonly #error: Uint8Array = new Uint8Array(4)
  #next = 0

  add(fd: number): WatchedSocket {
    while (this.#sockets.has(this.#next)) this.#next = (this.#next + 1) & ID_MASK
    const socket = { fd, id: this.#next, isArmed: false }
    this.#next = (this.#next + 1) & ID_MASK
    this.#sockets.set(socket.id, socket)
    return socket
  }

  remove({ id }: WatchedSocket): void {
    this.#sockets.delete(id)
  }

  /**
   * poll(2) has said this of it. An error, as that its interface went down, is told until somebody asks
   * for it.
   */
  woke(id: number, events: number): void {
    const socket = this.#sockets.get(id)
    if (socket === undefined) return
    socket.isArmed = false
    if ((events & POLLERR) !== 0) {
      shim.getSocketOption(socket.fd, SOL_SOCKET, SO_ERROR, this.#error)
    }
  }
}
