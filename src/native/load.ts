/**
 * Finds the file of the native shim and loads it. The first of these that is there and loads:
 *
 *     FRAMEPUMP_SHIM                                   nothing else is tried
 *     what this thread's parent has loaded             nothing else is tried
 *     native-shim/build/Release/framepump.node         a checkout, or built here before
 *     native-shim/prebuilds/linux-ARCH/framepump.LIBC.node     the npm package
 *     a build from source                              see build.ts
 *
 * The main thread has decided before the process gives up what it may do: a thread that starts later
 * loads the same file, and neither searches nor builds.
 */
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { getEnvironmentData, setEnvironmentData } from 'node:worker_threads'
import { SysError } from '../errors.ts'
import { buildFromSource } from './build.ts'

/** The shim's functions, and the file that has them. */
export interface Loaded {
  readonly functions: unknown
  readonly path: string
}

const SHIM_DIRECTORY: string = fileURLToPath(new URL('../../native-shim', import.meta.url))
/** Where a thread finds the path of its parent's. */
const PATH_KEY = 'framepump: native shim'

/** Throws a SysError SHIM_NOT_LOADED, whose hint says what to install. */
export function loadShim(): Loaded {
  const override = process.env['FRAMEPUMP_SHIM']
  if (override !== undefined && override !== '')
    return told(resolve(override), 'FRAMEPUMP_SHIM names it')
  const inherited = getEnvironmentData(PATH_KEY)
  if (typeof inherited === 'string') return told(inherited)

  const failures: string[] = []
  const libc = libcOfProcess()
  for (const path of shippedFiles(libc)) {
    if (!existsSync(path)) continue
    try {
      return open(path)
    } catch (error) {
      failures.push((error as Error).message)
    }
  }
  if (failures.length === 0) failures.push(`none is built for ${process.arch} with ${libc}`)
  const built = buildFromSource(SHIM_DIRECTORY, libc, failures)
  try {
    return told(built)
  } catch (error) {
    // The machine went down before it was on the disk, perhaps: the next start builds it again.
    rmSync(built, { force: true })
    throw error
  }
}

function shippedFiles(libc: string): string[] {
  return [
    join(SHIM_DIRECTORY, 'build', 'Release', 'framepump.node'),
    join(SHIM_DIRECTORY, 'prebuilds', `linux-${process.arch}`, `framepump.${libc}.node`),
  ]
}

/** Loads a file that was chosen by somebody else. */
function told(path: string, hint?: string): Loaded {
  try {
    return open(path)
  } catch (cause) {
    throw new SysError('SHIM_NOT_LOADED', `native shim not loaded: ${(cause as Error).message}`, {
      path,
      hint,
      cause,
    })
  }
}

/**
 * Not by require(): that resolves the path, which a thread may not be able to after the process has
 * changed its user. The dynamic loader knows a file that it has loaded by its name.
 */
function open(path: string): Loaded {
  const module: { exports: unknown } = { exports: {} }
  process.dlopen(module, path)
  setEnvironmentData(PATH_KEY, path)
  return { functions: module.exports, path }
}

/** The C library that this Node runs on, as what is mapped tells. */
function libcOfProcess(): 'glibc' | 'musl' {
  try {
    const maps = readFileSync('/proc/self/maps', 'latin1')
    return /\/(ld-musl-[^/\n]*|libc\.musl-[^/\n]*|libc\.so)$/m.test(maps) ? 'musl' : 'glibc'
  } catch {
    // Without /proc.
    return 'glibc'
  }
}
