/**
 * The directory in which what must survive a restart is kept, and its files. They say what a guest is
 * offered, so nobody else may write them: the directory and its files are ours or root's, and no link
 * is followed in the place of a file.
 *
 * A file is replaced as a whole: written beside it, synced, renamed, and the directory synced.
 */
import type { Stats } from 'node:fs'
import {
  accessSync,
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { SysError } from '../errors.ts'
import { makeDirectory } from '../sockets/socket-file.ts'
import { systemReason } from '../text.ts'

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } = constants
const WRITABLE_BY_OTHERS = 0o022
const STICKY = 0o1000
/** More than any of our files has. */
const LENGTH_MAX = 4096
const BLOCK = new Uint8Array(LENGTH_MAX)

/** Makes the directory when it is missing, and writes a file for a test. Throws SysError STATE_DIR. */
export function prepareStateDirectory(path: string): void {
  const test = join(path, `.test-${process.pid}`)
  try {
    makeDirectory(path)
    const why = whyUnsafe(statSync(path))
    if (why !== undefined) throw new Error(why)
    // As the user that we are: capabilities that let us write now may be given up.
    accessSync(path, constants.W_OK | constants.X_OK)
    writeSynced(test, BLOCK)
  } catch (cause) {
    throw new SysError('STATE_DIR', `state-dir ${path} cannot be used: ${reasonOf(cause)}`, {
      path,
      hint: 'it must be writable, with room, and nobody else’s; or name another',
      cause,
    })
  } finally {
    remove(test)
  }
}

/** The text of a file; undefined when there is none. Throws when it cannot be read or trusted. */
export function readStateFile(path: string): string | undefined {
  let fd: number
  try {
    fd = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
  try {
    const stat = fstatSync(fd)
    const why = stat.isFile() ? whyUnsafe(stat) : 'it is not a file'
    if (why !== undefined) throw new Error(why)
    if (stat.size > LENGTH_MAX) throw new Error(`it has ${stat.size} bytes`)
    return readFileSync(fd, 'utf8')
  } finally {
    closeSync(fd)
  }
}

/** Either the file has the new text afterwards, also after a power cut, or this throws. */
export function writeStateFile(directory: string, name: string, text: string): void {
  const path = join(directory, name)
  try {
    writeSynced(`${path}.new`, text)
    renameSync(`${path}.new`, path)
  } catch (error) {
    remove(`${path}.new`)
    throw error
  }
  const fd = openSync(directory, O_RDONLY | O_DIRECTORY)
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** Takes away what a process that was ended in the middle of writing has left. */
export function cleanStateFile(directory: string, name: string): void {
  remove(join(directory, `${name}.new`))
}

/** A new file: what has its name, a link for example, is removed and not written to. */
function writeSynced(path: string, contents: string | Uint8Array): void {
  remove(path)
  const fd = openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
  try {
    writeFileSync(fd, contents)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

function remove(path: string): void {
  try {
    unlinkSync(path)
  } catch {
    // It was not there, or whoever writes next says what is wrong.
  }
}

/** Why somebody else could have written it. */
function whyUnsafe({ uid, mode }: Stats): string | undefined {
  if (uid !== process.geteuid!() && uid !== 0) return `it belongs to user ${uid}`
  // In a directory like /tmp nobody can replace what is another's.
  const isSticky = (mode & constants.S_IFMT) === constants.S_IFDIR && (mode & STICKY) !== 0
  if ((mode & WRITABLE_BY_OTHERS) !== 0 && !isSticky) return 'others can write to it'
  return undefined
}

/** Without the system's call and path, which the reader has. */
export function reasonOf(cause: unknown): string {
  return (cause as NodeJS.ErrnoException).code === 'ELOOP' ? 'it is a link' : systemReason(cause)
}
