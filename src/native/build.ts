/**
 * Builds the native shim from source, once, when no file that came with the package loads: on a C
 * library that is older than theirs, or in a package that was installed from git without a compiler.
 *
 * What is loaded is code, so it lies where only this user and root can put it:
 * - in the package, if that is this user's. Not root's builds in a package of somebody else, who
 *   could not remove them;
 * - else in a cache: /var/cache/framepump for root, whatever the environment says (sudo may keep a
 *   user's), else $XDG_CACHE_HOME/framepump or ~/.cache/framepump, mode 0700. One that others can
 *   write, or of which they can rename a directory above, is not used.
 * A file appears there complete, by rename(2), under a name that has the hash of its sources.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { homedir } from 'node:os'
import { dirname, isAbsolute, join } from 'node:path'
import { SysError } from '../errors.ts'

const BUILD_TIMEOUT_MS = 120_000
const PACKAGES: Readonly<Record<string, string>> = {
  glibc: 'apt-get install gcc libc6-dev',
  musl: 'apk add gcc musl-dev linux-headers',
}
/** Group and others may write. */
const OPEN_MODE = 0o022
const STICKY_MODE = 0o1000

/**
 * The path of a file that was built from the sources in the directory, now or before. `failures` say
 * why the files of the package were not enough.
 */
export function buildFromSource(
  shimDirectory: string,
  libc: 'glibc' | 'musl',
  failures: readonly string[],
): string {
  const refuse = (reason: string, hint: string | undefined, cause?: unknown): SysError =>
    new SysError('SHIM_NOT_LOADED', ['native shim not loaded', ...failures, reason].join(': '), {
      path: shimDirectory,
      hint,
      cause,
    })
  try {
    const inPackage = packageDirectory(shimDirectory)
    const directory = inPackage ?? cacheDirectory()
    const name =
      inPackage === undefined ? `framepump-${hashOf(shimDirectory, libc)}.node` : 'framepump.node'
    const path = join(directory, name)
    if (inPackage === undefined && existsSync(path) && replaceableAt(path) === undefined) {
      return path
    }
    const problem = compile(shimDirectory, directory, path)
    if (problem === undefined) return path
    throw refuse(problem, PACKAGES[libc])
  } catch (error) {
    if (error instanceof SysError) throw error
    throw refuse(`cannot build it: ${(error as Error).message}`, undefined, error)
  }
}

/** Where a build goes in a package that is this user's; undefined: it is not. */
function packageDirectory(shimDirectory: string): string | undefined {
  const { uid, mode } = lstatSync(shimDirectory)
  if (uid !== process.geteuid?.() || (mode & OPEN_MODE) !== 0) return undefined
  const directory = join(shimDirectory, 'build', 'Release')
  try {
    mkdirSync(directory, { recursive: true, mode: 0o755 })
    rmSync(mkdtempSync(join(directory, '.probe-')), { recursive: true })
  } catch {
    // On a file system that is read-only.
    return undefined
  }
  return replaceableAt(directory) === undefined ? directory : undefined
}

function cacheDirectory(): string {
  const isRoot = process.geteuid?.() === 0
  const wanted = isRoot ? '/var/cache/framepump' : join(userCache(), 'framepump')
  // Root's is to be read after a change of the user: by threads on musl, which opens a file again.
  const mode = isRoot ? 0o755 : 0o700
  if (mkdirSync(wanted, { recursive: true, mode }) !== undefined) chmodSync(wanted, mode)
  const directory = realpathSync(wanted)
  const { uid } = lstatSync(directory)
  if (uid !== process.geteuid?.()) throw new Error(`${directory} belongs to somebody else`)
  const open = replaceableAt(directory)
  if (open !== undefined) throw new Error(`${open} can be written by others`)
  return directory
}

function userCache(): string {
  const given = process.env['XDG_CACHE_HOME']
  return given !== undefined && isAbsolute(given) ? given : join(homedir(), '.cache')
}

/** Where somebody who is neither this user nor root could put something else at the path. */
function replaceableAt(path: string): string | undefined {
  const end = realpathSync(path)
  for (let at = end; ; at = dirname(at)) {
    const { uid, mode } = lstatSync(at)
    const isOurs = uid === 0 || uid === process.geteuid?.()
    // In a sticky directory like /tmp nobody can rename what belongs to others.
    const isOpen = (mode & OPEN_MODE) !== 0 && (at === end || (mode & STICKY_MODE) === 0)
    if (!isOurs || isOpen) return at
    if (at === '/') return undefined
  }
}

const sourcesIn = (shimDirectory: string): string[] =>
  readdirSync(join(shimDirectory, 'src'))
    .sort()
    .map((name) => join(shimDirectory, 'src', name))

function hashOf(shimDirectory: string, libc: string): string {
  const hash = createHash('sha256').update(`${process.arch} ${libc}`)
  for (const file of [join(shimDirectory, 'flags'), ...sourcesIn(shimDirectory)]) {
    hash.update('\0').update(readFileSync(file))
  }
  return hash.digest('hex').slice(0, 32)
}

/** Puts the built file at the path. Returns what went wrong in one line, undefined: nothing. */
function compile(shimDirectory: string, directory: string, path: string): string | undefined {
  const [compiler = 'cc', ...options] = (process.env['CC'] ?? '').split(/\s+/).filter(Boolean)
  const headers = createRequire(import.meta.url).resolve('node-api-headers/include/node_api.h')
  const work = mkdtempSync(join(directory, '.build-'))
  try {
    const built = join(work, 'framepump.node')
    const sources = sourcesIn(shimDirectory).filter((name) => name.endsWith('.c'))
    const flags = [`@${join(shimDirectory, 'flags')}`, `-I${dirname(headers)}`]
    const { error, status, signal, stderr } = spawnSync(
      compiler,
      [...options, ...flags, '-o', built, ...sources],
      {
        encoding: 'utf8',
        stdio: ['ignore', 'ignore', 'pipe'],
        timeout: BUILD_TIMEOUT_MS,
        // Its temporary files as well are to be nobody else's.
        env: { ...process.env, TMPDIR: work, LC_ALL: 'C' },
      },
    )
    if (error !== undefined && 'code' in error && error.code === 'ENOENT') {
      return `no C compiler to build it with (${compiler})`
    }
    if (status !== 0) {
      const line = stderr.split('\n').find((text) => /error/.test(text))
      return `cannot build it: ${line ?? error?.message ?? `${compiler} ended with ${signal ?? status}`}`
    }
    chmodSync(built, 0o644)
    renameSync(built, path)
    return undefined
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}
