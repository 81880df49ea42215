/**
 * What a ring can be asked for, limited for good to what the engine does with it: io_uring opens files
 * and makes sockets as well, and no filter of system calls sees that. The kernel's check costs 7 ns an entry (of 260 for a write to
 * /dev/null, of 800 and more for a frame through a TAP). io_uring_register(2)
 */
import {
  IORING_OP_ASYNC_CANCEL,
  IORING_OP_POLL_ADD,
  IORING_OP_READ_MULTISHOT,
  IORING_OP_SEND,
  IORING_OP_WRITE,
  IORING_OP_WRITEV,
  IORING_REGISTER_ENABLE_RINGS,
  IORING_REGISTER_PBUF_RING,
  IORING_REGISTER_PROBE,
  IORING_REGISTER_RESTRICTIONS,
  IORING_RESTRICTION_REGISTER_OP,
  IORING_RESTRICTION_SQE_FLAGS_ALLOWED,
  IORING_RESTRICTION_SQE_OP,
  IORING_UNREGISTER_PBUF_RING,
  IOSQE_BUFFER_SELECT,
  IOSQE_CQE_SKIP_SUCCESS,
  RESTRICTION_LENGTH,
  RESTRICTION_OPERAND,
} from '../abi/io-uring.ts'
import { Window } from '../mem/window.ts'
import { shim } from '../native/shim.ts'

/** The operations that the tier needs, with their names. */
export const OPERATIONS: readonly (readonly [string, number])[] = [
  ['WRITEV', IORING_OP_WRITEV],
  ['POLL_ADD', IORING_OP_POLL_ADD],
  ['ASYNC_CANCEL', IORING_OP_ASYNC_CANCEL],
  ['WRITE', IORING_OP_WRITE],
  ['SEND', IORING_OP_SEND],
  ['READ_MULTISHOT (Linux 6.7)', IORING_OP_READ_MULTISHOT],
]

const RESTRICTIONS: readonly (readonly [number, number])[] = [
  ...OPERATIONS.map(([, operation]) => [IORING_RESTRICTION_SQE_OP, operation] as const),
  [IORING_RESTRICTION_SQE_FLAGS_ALLOWED, IOSQE_BUFFER_SELECT | IOSQE_CQE_SKIP_SUCCESS],
  [IORING_RESTRICTION_REGISTER_OP, IORING_REGISTER_PROBE],
  [IORING_RESTRICTION_REGISTER_OP, IORING_REGISTER_PBUF_RING],
  [IORING_RESTRICTION_REGISTER_OP, IORING_UNREGISTER_PBUF_RING],
]

/**
 * Limits a ring that was made with IORING_SETUP_R_DISABLED, and enables it. Returns 0, or -errno: then
 * it stays disabled. Whatever else is submitted completes with EACCES.
 */
export function limitRing(fd: number): number {
  const window = Window.map(RESTRICTIONS.length * RESTRICTION_LENGTH)
  try {
    const view = new DataView(window.buffer)
    RESTRICTIONS.forEach(([kind, operand], index) => {
      view.setUint16(index * RESTRICTION_LENGTH, kind, true)
      view.setUint8(index * RESTRICTION_LENGTH + RESTRICTION_OPERAND, operand)
    })
    const { length } = RESTRICTIONS
    const result = shim.uringRegister(fd, IORING_REGISTER_RESTRICTIONS, window.id, 0, length)
    if (result < 0) return result
    return shim.uringRegister(fd, IORING_REGISTER_ENABLE_RINGS, -1, 0, 0)
  } finally {
    window.unmap()
  }
}
