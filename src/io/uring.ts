/**
 * An io_uring whose rings are typed arrays: TypeScript fills submission entries and reads
 * completions, the shim only enters the kernel. Used by the thread that created it, no other
 * (IORING_SETUP_SINGLE_ISSUER); completions appear only inside `enter` (DEFER_TASKRUN).
 *
 *     sq entries (16 words each), tail = ours          cq entries (4 words each), head = ours
 *
 * Source: io_uring(7), linux/io_uring.h.
 */
import {
  CQE_LENGTH,
  IORING_ENTER_GETEVENTS,
  IORING_FEAT_CQE_SKIP,
  IORING_FEAT_SINGLE_MMAP,
  IORING_OFF_SQES,
  IORING_OFF_SQ_RING,
  IORING_SETUP_CQSIZE,
  IORING_SETUP_DEFER_TASKRUN,
  IORING_SETUP_NO_SQARRAY,
  IORING_SETUP_R_DISABLED,
  IORING_SETUP_SINGLE_ISSUER,
  IORING_SETUP_TASKRUN_FLAG,
  IORING_SQ_CQ_OVERFLOW,
  IORING_SQ_TASKRUN,
  SQE_ADDR,
  SQE_BUF_GROUP,
  SQE_FD,
  SQE_LEN,
  SQE_OPCODE_FLAGS,
  SQE_OP_FLAGS,
  SQE_USER_DATA,
  SQE_WORDS,
  URING_PARAMS_CQ_ENTRIES,
  URING_PARAMS_CQ_OFF_CQES,
  URING_PARAMS_CQ_OFF_HEAD,
  URING_PARAMS_CQ_OFF_TAIL,
  URING_PARAMS_FEATURES,
  URING_PARAMS_FLAGS,
  URING_PARAMS_LENGTH,
  URING_PARAMS_SQ_ENTRIES,
  URING_PARAMS_SQ_OFF_FLAGS,
  URING_PARAMS_SQ_OFF_HEAD,
  URING_PARAMS_SQ_OFF_TAIL,
} from '../abi/io-uring.ts'
import { strerror } from '../abi/strerror.ts'
import { SysError } from '../errors.ts'
import { Window } from '../mem/window.ts'
import { shim } from '../native/shim.ts'
import { limitRing } from './uring-limits.ts'

/** A submit that makes no progress this often is a defect, not a busy kernel. */
const SUBMIT_TRIES_MAX = 4096

export class Uring {
  readonly fd: number
  /** Completion entries as words; an entry is at `cqesAt + (head & cqMask) * CQE_WORDS`. */
  readonly cq: Int32Array
  readonly cqesAt: number
  readonly cqMask: number
  /** Our copy of the completion head; `publishHead` gives entries back to the kernel. */
  head = 0
  /** Entries pushed and not yet submitted. */
  pending = 0

  readonly #ring: Window
  readonly #sqes: Window
  readonly #sq: Int32Array
  readonly #sqEntries: number
  readonly #sqTail: number
  readonly #sqFlags: number
  readonly #cqHead: number
  readonly #cqTail: number
  #tail = 0

  constructor(sqEntries: number, cqEntries: number) {
    const params = new Uint8Array(URING_PARAMS_LENGTH)
    const view = new DataView(params.buffer)
    view.setUint32(URING_PARAMS_CQ_ENTRIES, cqEntries, true)
    view.setUint32(
      URING_PARAMS_FLAGS,
      IORING_SETUP_CQSIZE |
        IORING_SETUP_R_DISABLED |
        IORING_SETUP_SINGLE_ISSUER |
        IORING_SETUP_DEFER_TASKRUN |
        IORING_SETUP_TASKRUN_FLAG |
        IORING_SETUP_NO_SQARRAY,
      true,
    )
    const fd = shim.uringSetup(sqEntries, params)
    if (fd < 0) {
      throw new SysError('IO_URING_UNAVAILABLE', `io_uring_setup: ${strerror(-fd)}`, {
        syscall: 'io_uring_setup',
        errno: -fd,
      })
    }
    this.fd = fd
    const word = (offset: number): number => view.getUint32(offset, true)
    const features = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_CQE_SKIP
    if ((word(URING_PARAMS_FEATURES) & features) !== features) {
      shim.close(fd)
      throw new SysError('IO_URING_UNAVAILABLE', 'io_uring lacks SINGLE_MMAP or CQE_SKIP')
    }
    const limited = limitRing(fd)
    if (limited < 0) {
      shim.close(fd)
      throw new SysError(
        'IO_URING_UNAVAILABLE',
        `io_uring cannot be limited to what is needed: ${strerror(-limited)}`,
        { syscall: 'io_uring_register', errno: -limited },
      )
    }
    this.#sqEntries = word(URING_PARAMS_SQ_ENTRIES)
    const cqCount = word(URING_PARAMS_CQ_ENTRIES)
    this.#ring = Window.map(word(URING_PARAMS_CQ_OFF_CQES) + cqCount * CQE_LENGTH, {
      fd,
      fileOffset: IORING_OFF_SQ_RING,
    })
    this.#sqes = Window.map(this.#sqEntries * SQE_WORDS * 4, { fd, fileOffset: IORING_OFF_SQES })
    this.cq = new Int32Array(this.#ring.buffer)
    this.#sq = new Int32Array(this.#sqes.buffer)
    this.#sqTail = word(URING_PARAMS_SQ_OFF_TAIL) >> 2
    this.#sqFlags = word(URING_PARAMS_SQ_OFF_FLAGS) >> 2
    this.#cqHead = word(URING_PARAMS_CQ_OFF_HEAD) >> 2
    this.#cqTail = word(URING_PARAMS_CQ_OFF_TAIL) >> 2
    this.cqesAt = word(URING_PARAMS_CQ_OFF_CQES) >> 2
    this.cqMask = cqCount - 1
    this.#tail = Atomics.load(this.cq, word(URING_PARAMS_SQ_OFF_HEAD) >> 2)
  }

  /**
   * Adds a submission entry; submits first when the ring is full.
   * `bufferGroup` is 0 where the operation has none. The address comes in halves: as one number
   * beyond 2^31 it is an allocation, where V8 does not inline the call.
   * @hot
   */
  push(
    opcodeAndFlags: number,
    fd: number,
    addressLow: number,
    addressHigh: number,
    length: number,
    opFlags: number,
    userDataLow: number,
    userDataHigh: number,
    bufferGroup: number,
  ): void {
    if (this.pending === this.#sqEntries) this.submit()
    const sq = this.#sq
    const at = (this.#tail & (this.#sqEntries - 1)) * SQE_WORDS
    sq[at + SQE_OPCODE_FLAGS] = opcodeAndFlags
    sq[at + SQE_FD] = fd
    // Words 2 and 3, the file offset, stay zero: a TAP has none, cancel and poll insist on it.
    sq[at + SQE_ADDR] = addressLow
    sq[at + SQE_ADDR + 1] = addressHigh
    sq[at + SQE_LEN] = length
    sq[at + SQE_OP_FLAGS] = opFlags
    sq[at + SQE_USER_DATA] = userDataLow
    sq[at + SQE_USER_DATA + 1] = userDataHigh
    sq[at + SQE_BUF_GROUP] = bufferGroup
    // So do words 11..15 (personality, file_index, addr3).
    this.#tail = (this.#tail + 1) | 0
    this.pending++
  }

  /**
   * Hands all pending entries to the kernel; those with RWF_NOWAIT are done on return.
   * @hot
   */
  submit(): void {
    let tries = 0
    do {
      this.enter(0, -1)
      if (++tries > SUBMIT_TRIES_MAX) throw new RangeError('io_uring takes no entries')
    } while (this.pending > 0)
  }

  /**
   * One io_uring_enter: submits what is pending, runs completions, and waits for `minComplete`
   * entries at most `timeoutUs` (-1: for ever). Returns the shim's result.
   * @hot
   */
  enter(minComplete: number, timeoutUs: number): number {
    Atomics.store(this.cq, this.#sqTail, this.#tail)
    const done = shim.uringEnter(
      this.fd,
      this.pending,
      minComplete,
      IORING_ENTER_GETEVENTS,
      timeoutUs,
    )
    // An entry that fails early ends the batch; those behind it are still ours.
    if (done > 0) this.pending -= done
    return done
  }

  /**
   * True when completions wait, or the kernel has work that an enter would turn into some. Costs no
   * system call.
   * @hot
   */
  hasWork(): boolean {
    return Atomics.load(this.cq, this.#cqTail) !== this.head || this.hasTaskWork()
  }

  /** Only the second. @hot */
  hasTaskWork(): boolean {
    const flags = Atomics.load(this.cq, this.#sqFlags)
    return (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) !== 0
  }

  /** The kernel's completion tail. @hot */
  tail(): number {
    return Atomics.load(this.cq, this.#cqTail)
  }

  /** Gives the completion entries before `head` back. @hot */
  publishHead(): void {
    Atomics.store(this.cq, this.#cqHead, this.head)
  }

  close(): void {
    this.#sqes.unmap()
    this.#ring.unmap()
    shim.close(this.fd)
  }
}
