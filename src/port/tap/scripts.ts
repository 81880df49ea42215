/** Up and down scripts and the bridge helper: programs that run for a TAP. */
import { spawn } from 'node:child_process'
import { POLLIN } from '../../abi/epoll.ts'
import { strerror } from '../../abi/strerror.ts'
import { SysError } from '../../errors.ts'
import type { Shim } from '../../native/shim.ts'

const SOCK_STREAM = 1
const HELPER_TIMEOUT_MS = 10_000

/** '' and 'no' mean none; there is no default script. */
export function isScript(path: string | undefined): path is string {
  return path !== undefined && path !== '' && path !== 'no'
}

/** Runs `path ifname`; throws SysError when it cannot be started or fails. */
export async function runScript(path: string, ifname: string): Promise<void> {
  const child = spawn(path, [ifname], { stdio: ['ignore', 'inherit', 'inherit'] })
  const status = await new Promise<number | NodeJS.ErrnoException>((resolve) => {
    child.once('error', resolve)
    child.once('exit', (code, signal) => resolve(code ?? (signal === null ? -1 : 128)))
  })
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
export async function runHelper(shim: Shim, helper: string, bridge: string): Promise<number> {
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
    const child = spawn(program, args, { stdio: ['ignore', 'inherit', 'inherit', theirs] })
    const status = await new Promise<number | Error>((resolve) => {
      const timer = setTimeout(() => child.kill('SIGKILL'), HELPER_TIMEOUT_MS)
      child.once('error', resolve)
      child.once('exit', (code) => {
        clearTimeout(timer)
        resolve(code ?? -1)
      })
    })
    if (typeof status !== 'number') {
      throw new SysError('TAP_HELPER', "Can't fork bridge helper", { path: helper, cause: status })
    }
    const fds = new Int32Array(1)
    const info = new Int32Array(2)
    if ((shim.poll(ours, POLLIN, 0) & POLLIN) !== 0) {
      shim.recvMsg(ours, new Uint8Array(1), fds, info, 0)
    }
    if (status !== 0) {
      if (info[0] > 0) shim.close(fds[0])
      throw new SysError('TAP_HELPER', 'bridge helper failed', { path: helper })
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
