/** Up and down scripts and the bridge helper: programs that run for a TAP. */
import type { ChildProcess, StdioOptions } from 'node:child_process'
import { spawn } from 'node:child_process'
import { POLLIN } from '../../abi/epoll.ts'
import { strerror } from '../../abi/strerror.ts'
import { SysError } from '../../errors.ts'
import type { Shim } from '../../native/shim.ts'

const SOCK_STREAM = 1
const HELPER_TIMEOUT_MS = 10_000
/** Other changes of the switch wait for a script, and so does its end. */
const SCRIPT_TIMEOUT_MS = 30_000

/** '' and 'no' mean none; there is no default script. */
export function isScript(path: string | undefined): path is string {
  return path !== undefined && path !== '' && path !== 'no'
}

/** Its end: status (128: by a signal), or why it could not be started, or that it took too long. */
type Ending = number | NodeJS.ErrnoException | 'timeout'

/**
 * Waits for the program, and ends it and all that it has started when it takes too long. It leads a
 * process group of its own.
 */
function ended(child: ChildProcess, timeoutMs: number): Promise<Ending> {
  return new Promise((resolve) => {
    let isLate = false
    const timer = setTimeout(() => {
      isLate = true
      killGroup(child)
    }, timeoutMs)
    const end = (ending: Ending): void => {
      clearTimeout(timer)
      resolve(isLate ? 'timeout' : ending)
    }
    child.once('error', end)
    child.once('exit', (code, signal) => end(code ?? (signal === null ? -1 : 128)))
  })
}

function killGroup({ pid }: ChildProcess): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL')
  } catch {
    // It has just ended.
  }
}

/** Runs `path ifname`; throws SysError when it cannot be started, fails, or takes too long. */
export async function runScript(
  path: string,
  ifname: string,
  timeoutMs: number = SCRIPT_TIMEOUT_MS,
): Promise<void> {
  const child = spawn(path, [ifname], { stdio: ['ignore', 'inherit', 'inherit'], detached: true })
  const status = await ended(child, timeoutMs)
  if (status === 'timeout') {
    throw new SysError(
      'TAP_SCRIPT',
      `network script ${path} did not end within ${timeoutMs / 1000} s and was killed`,
      { ifname, path },
    )
  }
  if (typeof status !== 'number') {
    const errno = Math.abs(status.errno ?? 0)
    throw new SysError(
      'TAP_SCRIPT',
      `could not launch network script ${path}: ${strerror(errno)}`,
      { syscall: 'execve', errno, ifname, path },
    )
  }
  if (status !== 0) {
    throw new SysError('TAP_SCRIPT', `network script ${path} failed with status ${status}`, {
      ifname,
      path,
    })
  }
}

/** Runs a bridge helper, which sends back a TAP descriptor over its descriptor 3. */
export async function runHelper(
  shim: Shim,
  helper: string,
  bridge: string,
  timeoutMs: number = HELPER_TIMEOUT_MS,
): Promise<number> {
  const pair = new Int32Array(2)
  if (shim.socketPair(SOCK_STREAM, pair) < 0) {
    throw new SysError('TAP_HELPER', 'socketpair() failed', { syscall: 'socketpair' })
  }
  const [ours, theirs] = [pair[0], pair[1]]
  try {
    const isCommandLine = /[ \t]/.test(helper)
    const options = [
      '--use-vnet',
      '--fd=3',
      ...(helper.includes('--br=') ? [] : [`--br=${bridge}`]),
    ]
    const [program, args] = isCommandLine
      ? ['sh', ['-c', [helper, ...options].join(' ')]]
      : [helper, options]
    const stdio: StdioOptions = ['ignore', 'inherit', 'inherit', theirs]
    const child = spawn(program, args, { stdio, detached: true })
    const status = await ended(child, timeoutMs)
    if (status instanceof Error) {
      throw new SysError('TAP_HELPER', "Can't fork bridge helper", { path: helper, cause: status })
    }
    const fds = new Int32Array(1)
    const info = new Int32Array(2)
    if ((shim.poll(ours, POLLIN, 0) & POLLIN) !== 0) {
      shim.recvMsg(ours, new Uint8Array(1), fds, info, 0)
    }
    if (status !== 0) {
      if (info[0] > 0) shim.close(fds[0])
      const late = `bridge helper did not end within ${timeoutMs / 1000} s and was killed`
      throw new SysError('TAP_HELPER', status === 'timeout' ? late : 'bridge helper failed', {
        path: helper,
      })
    }
    if (info[0] !== 1) {
      throw new SysError('TAP_HELPER', 'failed to recv file descriptor', { path: helper })
    }
    return fds[0]
  } finally {
    shim.close(ours)
    shim.close(theirs)
  }
}
