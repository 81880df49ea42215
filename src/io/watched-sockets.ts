/** The sockets that may wake the engine, of either tier. */
import { POLLERR } from '../abi/epoll.ts'
import { SO_ERROR, SOL_SOCKET } from '../abi/if-packet.ts'
import { shim } from '../native/shim.ts'
import type { WatchedSocket } from './tier.ts'

export class WatchedSockets {
  /** By their numbers; null: free. */
  readonly #sockets: (WatchedSocket | null)[] = []
  readonly #error: Uint8Array = new Uint8Array(4)

  add(fd: number): WatchedSocket {
    let id = this.#sockets.indexOf(null)
    if (id < 0) id = this.#sockets.length
    const socket = { fd, id, isArmed: false }
    this.#sockets[id] = socket
    return socket
  }

  remove({ id }: WatchedSocket): void {
    this.#sockets[id] = null
  }

  /**
   * poll(2) has said this of it. An error, as that its interface went down, is told until somebody asks
   * for it.
   */
  woke(id: number, events: number): void {
    const socket = this.#sockets[id]
    if (socket == null) return
    socket.isArmed = false
    if ((events & POLLERR) !== 0) {
      shim.getSocketOption(socket.fd, SOL_SOCKET, SO_ERROR, this.#error)
    }
  }
}
