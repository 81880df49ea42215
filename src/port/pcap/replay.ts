/**
 * A port that replays a capture file, as the control plane keeps it. The engine reads the file burst by
 * burst, and finds out when it was cut meanwhile; what must not be waited for there (FUSE, the network)
 * is copied into memory first.
 */
import * as fs from 'node:fs'
import { promisify } from 'node:util'
import { claimFile } from '../../capture/files-in-use.ts'
import { isGzip } from '../../capture/formats.ts'
import { inflateFile } from '../../capture/inflate.ts'
import type { CaptureIndex } from '../../capture/read-file.ts'
import { indexCapture } from '../../capture/read-file.ts'
import { ConfigError, SysError } from '../../errors.ts'
import type { Log } from '../../text.ts'
import { systemReason } from '../../text.ts'
import { WINDOW_LENGTH_MAX, Window } from '../../mem/window.ts'
import { shim } from '../../native/shim.ts'
import type { PcapOptions, PortOptions } from '../options.ts'
import type { HandedState } from '../handed.ts'
import { handOverReplay, readReplay, tableFile } from './hand-over.ts'
import type { ReplayDescription, ReplayPosition, ReplaySettings } from './messages.ts'
import { strerror } from '../../abi/strerror.ts'
import { OFFLOADS_ALL } from '../../wire/vnet-hdr.ts'
import { fileRefusal } from '../slow-file.ts'
import type { EngineAccess, ControlPort, PortFacts } from '../control-port.ts'
import { DevicelessPort } from '../deviceless.control.ts'

/** Bytes of a file that are copied at once. */
const CHUNK_LENGTH = 4 * 2 ** 20
const MFD_CLOEXEC = 1

// All of these are another thread's work: a server of the file may take its time.
const open = promisify(fs.open)
const fstat = promisify(fs.fstat)
const read = promisify(fs.read)

export class ReplayControlPort extends DevicelessPort implements ControlPort {
  readonly txOffloads: number = OFFLOADS_ALL
  readonly description: ReplayDescription
  readonly #id: string
  readonly #path: string
  readonly #fd: number
  /** Nobody writes into the file until then. */
  readonly #release: () => void
  #engine: EngineAccess | undefined
  /** Where its frames are, while another process may take it over; -1: there is none. */
  #table = -1

  private constructor(
    id: string,
    path: string,
    fd: number,
    release: () => void,
    description: ReplayDescription,
  ) {
    super()
    this.#id = id
    this.#path = path
    this.#fd = fd
    this.#release = release
    this.description = description
  }

  static async open(options: PcapOptions, log: Log): Promise<ControlPort> {
    const path = options.replay!
    const opened = await openFile(path)
    const release = claimOrClose(opened.fd, path, options.id)
    const { fd, size } = await unpacked(opened, path, log).catch((error: unknown) => {
      release()
      throw error
    })
    try {
      const index = indexFile({ fd, size }, path)
      for (const note of index.notes) log(`${path}: ${note}`)
      return new ReplayControlPort(options.id, path, fd, release, {
        kind: 'replay',
        file: {
          fd,
          size,
          offset: index.offset,
          length: index.length,
          dueUs: index.dueUs,
          ...replaySettings(options),
        },
      })
    } catch (error) {
      release()
      shim.close(fd)
      throw error
    }
  }

  /** Goes on with one of another process. */
  static takeOver(options: PcapOptions, handed: HandedState): ControlPort {
    const path = options.replay!
    const { fd, size, table, position } = readReplay(options, handed)
    const release = claimFile(fd, path, false, `port "${options.id}"`)
    // The table has been copied.
    for (const other of handed.fds.slice(1)) shim.close(other)
    const file = { fd, size, ...table, ...replaySettings(options) }
    return new ReplayControlPort(options.id, path, fd, release, {
      kind: 'replay',
      file,
      position,
    })
  }

  async handOver(engine: EngineAccess): Promise<HandedState> {
    const position = (await engine.call({ do: 'replay-position' })) as ReplayPosition
    const { file } = this.description
    this.#table = tableFile(file)
    return handOverReplay(this.#id, file, position, this.#table)
  }

  keep(): Promise<void> {
    this.#closeTable()
    return Promise.resolve()
  }

  handedOver(): Promise<void> {
    this.#closeTable()
    return this.close()
  }

  #closeTable(): void {
    if (this.#table >= 0) shim.close(this.#table)
    this.#table = -1
  }

  start(engine: EngineAccess): void {
    this.#engine = engine
  }

  async change(_before: PortOptions, after: PortOptions): Promise<void> {
    const settings = replaySettings(after as PcapOptions)
    await this.#engine?.call({ do: 'change-replay', settings })
  }

  facts(): PortFacts {
    return { path: this.#path }
  }

  close(): Promise<void> {
    this.#release()
    shim.close(this.#fd)
    return Promise.resolve()
  }
}

/** How the file is replayed. */
export function replaySettings({ pace, loop }: PcapOptions): ReplaySettings {
  return { isPaced: pace !== 'full', loop: loop ?? 1 }
}

function claimOrClose(fd: number, path: string, id: string): () => void {
  try {
    return claimFile(fd, path, false, `port "${id}"`)
  } catch (error) {
    shim.close(fd)
    throw error
  }
}

interface OpenFile {
  readonly fd: number
  readonly size: number
}

/** A descriptor that the engine may read without waiting for anything but a disk. */
async function openFile(path: string): Promise<OpenFile> {
  const fd = await open(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK).catch(
    (error: NodeJS.ErrnoException) => {
      throw new SysError('CAPTURE_FILE', `cannot open ${path}: ${systemReason(error)}`, {
        syscall: 'open',
        errno: -(error.errno ?? 0),
        path,
      })
    },
  )
  let isCopied = false
  try {
    const stat = await fstat(fd)
    if (!stat.isFile() || stat.size === 0) {
      throw new ConfigError('CAPTURE_FORMAT', `${path}: not a capture file, or empty`)
    }
    if (stat.size > WINDOW_LENGTH_MAX) {
      throw new ConfigError('CAPTURE_FORMAT', `${path}: larger than 2 GiB`, {
        hint: 'split it with editcap -c',
      })
    }
    isCopied = fileRefusal(shim.getSeals(fd), shim.deviceMajor(fd)) !== null
    return { fd: isCopied ? await copy(fd, stat.size, path) : fd, size: stat.size }
  } catch (error) {
    isCopied = true
    throw error
  } finally {
    if (isCopied) shim.close(fd)
  }
}

/** A memory file with the bytes of another. */
async function copy(fd: number, size: number, path: string): Promise<number> {
  const memfd = makeMemfd(size, path)
  try {
    const window = Window.map(size, { fd: memfd })
    try {
      const bytes = new Uint8Array(window.buffer)
      for (let at = 0; at < size;) {
        const { bytesRead } = await read(fd, bytes, at, Math.min(CHUNK_LENGTH, size - at), at)
        if (bytesRead === 0) throw truncated(path)
        at += bytesRead
      }
    } finally {
      window.unmap()
    }
    return memfd
  } catch (error) {
    shim.close(memfd)
    const { code, errno } = error as NodeJS.ErrnoException
    if (code === undefined || errno === undefined || error instanceof SysError) throw error
    throw unreadable(path, 'read', -errno)
  }
}

/** What is in the file when it is a gzip file, else the file. */
async function unpacked(file: OpenFile, path: string, log: Log): Promise<OpenFile> {
  let isKept = false
  let window: Window | undefined
  try {
    window = Window.map(file.size, { fd: file.fd, readOnly: true })
    const bytes = new Uint8Array(window.buffer)
    isKept = !isGzip(bytes)
    if (isKept) return file
    const inflated = await inflateFile(bytes, path)
    try {
      if (shim.windowFaults(window.id) > 0) throw truncated(path)
      if (inflated.isCut) log(`${path}: the gzip file is cut off: the rest is replayed`, 'warning')
      return memoryFile(new Uint8Array(inflated.window.buffer), path)
    } finally {
      inflated.window.unmap()
    }
  } finally {
    window?.unmap()
    if (!isKept) shim.close(file.fd)
  }
}

function memoryFile(bytes: Uint8Array, path: string): OpenFile {
  const fd = makeMemfd(bytes.length, path)
  try {
    const window = Window.map(bytes.length, { fd })
    new Uint8Array(window.buffer).set(bytes)
    window.unmap()
    return { fd, size: bytes.length }
  } catch (error) {
    shim.close(fd)
    throw error
  }
}

function makeMemfd(size: number, path: string): number {
  const memfd = shim.memfdCreate('framepump-replay', MFD_CLOEXEC)
  if (memfd < 0) throw unreadable(path, 'memfd_create', -memfd)
  const sized = shim.ftruncate(memfd, size)
  if (sized >= 0) return memfd
  shim.close(memfd)
  throw unreadable(path, 'ftruncate', -sized)
}

function indexFile(file: OpenFile, path: string): CaptureIndex {
  const window = Window.map(file.size, { fd: file.fd, readOnly: true })
  try {
    const index = indexCapture(new Uint8Array(window.buffer), path)
    if (shim.windowFaults(window.id) > 0) throw truncated(path)
    return index
  } finally {
    window.unmap()
  }
}

const truncated = (path: string): SysError =>
  new SysError('CAPTURE_FILE', `${path} was truncated while it was read`, { path })

const unreadable = (path: string, syscall: string, errno: number): SysError =>
  new SysError('CAPTURE_FILE', `cannot read ${path}: ${strerror(errno)}`, { syscall, errno, path })
