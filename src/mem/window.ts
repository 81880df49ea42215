/**
 * A window: mapped memory under 2 GiB that the shim knows by number, as this thread sees it.
 *
 * The mapping belongs to the process: one thread creates it (`Window.map`), others look at it
 * (`Window.view`) and detach when told; the creator unmaps it at once when every view is gone.
 */
import { strerror } from '../abi/strerror.ts'
import { shim, WINDOW_MIRRORED, WINDOW_READ_ONLY } from '../native/shim.ts'
import { SysError } from '../errors.ts'

/** Windows stay below 2 GiB, so that every offset is an int32. */
export const WINDOW_LENGTH_MAX = 0x7fff_f000

const MFD_CLOEXEC = 1

/** Windows that the shim can know at once. */
export const WINDOWS_MAX = 32_768

/**
 * Address and length of each window that this thread knows, by number; length 0: it knows none. For
 * io_uring entries, whose addresses nobody else checks.
 */
export const windowAddresses: Float64Array = new Float64Array(WINDOWS_MAX)
export const windowLengths: Float64Array = new Float64Array(WINDOWS_MAX)

/**
 * Has this thread know where a window is, before its first use there: its number may have been
 * another's. One that is viewed whole is known.
 */
export function knowWindow(id: number): void {
  windowAddresses[id] = shim.windowAddress(id)
  windowLengths[id] = shim.windowLength(id)
}

/** This thread uses it no more. */
export function forgetWindow(id: number): void {
  windowLengths[id] = 0
}

export interface WindowOptions {
  /** Descriptor to map; absent: anonymous memory. It may be closed after the call. */
  readonly fd?: number
  /** Offset in the file, a multiple of the page size. */
  readonly fileOffset?: number
  readonly mirrored?: boolean
  readonly readOnly?: boolean
}

export class Window {
  /** The shim's number for it. */
  readonly id: number
  /** Over the whole window; length 0 once it is detached. */
  readonly buffer: ArrayBuffer

  private constructor(id: number, buffer: ArrayBuffer) {
    this.id = id
    this.buffer = buffer
    knowWindow(id)
  }

  /** Maps memory and gives this thread's view of it. */
  static map(length: number, options: WindowOptions = {}): Window {
    const flags =
      (options.mirrored === true ? WINDOW_MIRRORED : 0) |
      (options.readOnly === true ? WINDOW_READ_ONLY : 0)
    const id = shim.windowMap(options.fd ?? -1, length, options.fileOffset ?? 0, flags)
    if (id < 0) {
      throw new SysError('OUT_OF_MEMORY', `cannot map ${length} bytes: ${strerror(-id)}`, {
        syscall: 'mmap',
        errno: -id,
      })
    }
    try {
      return Window.view(id)
    } catch (error) {
      shim.windowUnmap(id)
      throw error
    }
  }

  /** A new memfd of `length` bytes, all zero; the caller closes it. */
  static createMemfd(name: string, length: number): number {
    const fd = shim.memfdCreate(name, MFD_CLOEXEC)
    if (fd < 0) throw outOfMemory('memfd_create', fd)
    const sized = shim.ftruncate(fd, length)
    if (sized >= 0) return fd
    shim.close(fd)
    throw outOfMemory('ftruncate', sized)
  }

  /** Maps a new memfd. */
  static mapMemfd(name: string, length: number): Window {
    const fd = Window.createMemfd(name, length)
    try {
      return Window.map(length, { fd })
    } finally {
      shim.close(fd)
    }
  }

  /** A second thread's view of a window that another thread mapped. */
  static view(id: number): Window {
    const buffer = shim.windowBuffer(id)
    if (typeof buffer === 'number') {
      throw new SysError('OUT_OF_MEMORY', `cannot view window ${id}: ${strerror(-buffer)}`, {
        errno: -buffer,
      })
    }
    return new Window(id, buffer)
  }

  /** Address of the first byte, below 2^53. */
  get address(): number {
    return windowAddresses[this.id]
  }

  /** Ends this thread's view. A second call does nothing. */
  detach(): void {
    if (this.buffer.byteLength === 0) return
    shim.windowDetach(this.buffer)
    forgetWindow(this.id)
  }

  /** Ends this thread's view and the mapping. All other views are detached before. */
  unmap(): void {
    this.detach()
    shim.windowUnmap(this.id)
  }
}

/**
 * A window that nobody views: its bytes are moved by rows of the shim alone. V8 counts every view as
 * memory of its own, and collects garbage for it; this one costs it nothing.
 */
export class HiddenWindow {
  /** The shim's number for it. */
  readonly id: number

  private constructor(id: number) {
    this.id = id
    knowWindow(id)
  }

  /** Maps anonymous memory, all zero; ended by `unmap`. */
  static map(length: number): HiddenWindow {
    const id = shim.windowMap(-1, length, 0, 0)
    if (id < 0) throw outOfMemory('mmap', id)
    return new HiddenWindow(id)
  }

  /** One that another thread mapped, and unmaps. */
  static of(id: number): HiddenWindow {
    return new HiddenWindow(id)
  }

  /** This thread uses it no more. */
  detach(): void {
    forgetWindow(this.id)
  }

  unmap(): void {
    this.detach()
    shim.windowUnmap(this.id)
  }
}

const outOfMemory = (syscall: string, result: number): SysError =>
  new SysError('OUT_OF_MEMORY', `${syscall}: ${strerror(-result)}`, { syscall, errno: -result })
