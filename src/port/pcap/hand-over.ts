/**
 * pcap ports that another process goes on with. A replay: its file, or the copy of it in memory, and where
 * its frames are, which takes too long to be found out again. A record: its file, to which more is written.
 */
import type { CameCapture, CaptureState } from '../../capture/capture.ts'
import { shim } from '../../native/shim.ts'
import { Window } from '../../mem/window.ts'
import { readCapture, writeCapture } from '../handed-capture.ts'
import type { HandedState, JsonValue } from '../handed.ts'
import { HandedReader, handOverError } from '../handed.ts'
import type { PcapOptions } from '../options.ts'
import type { ReplayFile, ReplayPosition } from './messages.ts'

const VERSION = 1
/** Bytes of a frame in the table: f64 due, i32 offset, i32 length, as three arrays. */
const FRAME_BYTES = 16
const MFD_CLOEXEC = 1

type FrameTable = Pick<ReplayFile, 'dueUs' | 'offset' | 'length'>

/** A replay, as it came. */
export interface CameReplay {
  readonly fd: number
  readonly size: number
  readonly table: FrameTable
  readonly position: ReplayPosition
}

/** A memory file with the table, for the caller to close; -1: it has no frames, or cannot be made. */
export function tableFile({ dueUs, offset, length }: FrameTable): number {
  const frames = dueUs.length
  if (frames === 0) return -1
  const fd = shim.memfdCreate('framepump-replay-table', MFD_CLOEXEC)
  if (fd < 0) return -1
  try {
    if (shim.ftruncate(fd, frames * FRAME_BYTES) < 0) throw new Error('no memory')
    const window = Window.map(frames * FRAME_BYTES, { fd })
    new Float64Array(window.buffer, 0, frames).set(dueUs)
    new Int32Array(window.buffer, 8 * frames, frames).set(offset)
    new Int32Array(window.buffer, 12 * frames, frames).set(length)
    window.unmap()
    return fd
  } catch {
    shim.close(fd)
    return -1
  }
}

/** `table` is what tableFile() gave. */
export function handOverReplay(
  id: string,
  file: ReplayFile,
  position: ReplayPosition,
  table: number,
): HandedState {
  const frames = file.dueUs.length
  if (frames > 0 && table < 0) throw handOverError(id, 'there is no memory for its table of frames')
  const state = { size: file.size, frames, position: { ...position } } satisfies JsonValue
  return { version: VERSION, state, fds: frames > 0 ? [file.fd, table] : [file.fd] }
}

/** Copies the table; the descriptors stay the caller's. */
export function readReplay(options: PcapOptions, handed: HandedState): CameReplay {
  const state = HandedReader.of(options, handed, VERSION)
  const [size, frames] = [state.number('size'), state.number('frames')]
  const at = state.object('position')
  const [fd, table] = handed.fds
  if (handed.fds.length !== (frames > 0 ? 2 : 1)) {
    throw handOverError(options.id, `${handed.fds.length} descriptors came for a replay`)
  }
  if (shim.fileSize(fd) < size) {
    throw handOverError(options.id, `descriptor ${fd} is not a file of ${size} bytes`)
  }
  const position = {
    at: at.number('at'),
    loopsDone: at.number('loopsDone'),
    startUs: at.real('startUs'),
    hasFailed: at.boolean('hasFailed'),
  }
  const isInside = position.at >= 0 && position.at <= frames
  if (!isInside) throw handOverError(options.id, `frame ${position.at} of ${frames} is not there`)
  return { fd, size, table: readTable(options.id, frames, table), position }
}

function readTable(id: string, frames: number, fd: number): FrameTable {
  if (frames === 0) {
    return { dueUs: new Float64Array(0), offset: new Int32Array(0), length: new Int32Array(0) }
  }
  if (shim.fileSize(fd) !== frames * FRAME_BYTES) {
    throw handOverError(id, `descriptor ${fd} is not a table of ${frames} frames`)
  }
  const window = Window.map(frames * FRAME_BYTES, { fd, readOnly: true })
  const { buffer } = window
  const table = {
    dueUs: new Float64Array(buffer, 0, frames).slice(),
    offset: new Int32Array(buffer, 8 * frames, frames).slice(),
    length: new Int32Array(buffer, 12 * frames, frames).slice(),
  }
  window.unmap()
  return table
}

export function handOverRecord({ state, fd }: { state: CaptureState; fd: number }): HandedState {
  return { version: VERSION, state: writeCapture(state), fds: [fd] }
}

export function readRecord(options: PcapOptions, handed: HandedState): CameCapture {
  const state = HandedReader.of(options, handed, VERSION)
  if (handed.fds.length !== 1) {
    throw handOverError(options.id, `${handed.fds.length} descriptors came for a record`)
  }
  return { state: readCapture(state), fd: handed.fds[0] }
}
