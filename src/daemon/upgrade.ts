/**
 * Replacing the daemon by a new one of the installed package. It starts that itself, so that streams,
 * session, cgroup, limits and namespaces stay; one that has given up starting programs says how somebody
 * else does it.
 */
import { resolve } from 'node:path'
import { IMPLIED_USER } from '../config/privileges.ts'
import { describeResult } from '../control/commands/migration.ts'
import { StateError } from '../errors.ts'
import { connectTo } from '../handover/meeting.ts'
import type { Log } from '../text.ts'
import type { Migration } from './migration.ts'
import type { Notify } from './notify.ts'
import type { Privileges } from './privileges.ts'
import { planSuccessor, Successor, transferOf } from './successor.ts'

/** For a successor that loads and prepares itself; nothing waits for it. */
const START_MS = 60_000
/** What the log is, and who the user is. */
const INHERITED = ['JOURNAL_STREAM', IMPLIED_USER]

export interface UpgradeContext {
  readonly migration: Migration
  readonly privileges: Privileges
  readonly notify: Notify | undefined
  readonly release: string
  readonly controlPath: string
  readonly log: Log
}

/** Throws what went wrong; the daemon goes on, unless it is HandedAway. */
export async function upgrade(
  context: UpgradeContext,
  options: readonly string[],
): Promise<Record<string, unknown>> {
  const { migration, privileges, notify, release, controlPath, log } = context
  if (process.pid === 1) {
    throw new StateError(
      'HAND_OVER',
      'process 1 cannot be replaced: its end is that of all others',
      {
        hint: 'start the container with an init (docker run --init)',
      },
    )
  }
  // Whoever starts the successor may be in another directory.
  const path = resolve(`${controlPath}.upgrade`)
  const transfer = transferOf(options, { ...migration.parameters, backendTransfer: true })
  const environment = { ...notify?.environment, ...inherited(INHERITED) }
  const plan = planSuccessor(process.argv, `unix:${path}`, transfer.exclude, options, environment)
  if (!privileges.areWhole) return { start: { ...plan, path, ...transfer, ...whoIs() } }
  const successor = new Successor({ ...plan, program: process.execPath })
  const comes = AbortSignal.any([successor.ended, AbortSignal.timeout(START_MS)])
  try {
    const parameters = { ...migration.parameters, ...transfer }
    const connect = (cancel: AbortSignal): ReturnType<typeof connectTo> =>
      connectTo(path, release, log, AbortSignal.any([comes, cancel]))
    const result = await migration.handOver(connect, parameters)
    successor.leave()
    return describeResult(result)
  } catch (error) {
    successor.end()
    throw error
  }
}

/** Of this process's environment, for whoever starts the successor. */
function inherited(names: readonly string[]): Record<string, string> {
  const { env } = process
  return Object.fromEntries(names.flatMap((name) => (env[name] ? [[name, env[name]]] : [])))
}

/** Of this process, as far as who starts the successor has to know it. */
function whoIs(): Record<string, unknown> {
  return {
    program: process.execPath,
    pid: process.pid,
    uid: process.geteuid!(),
    gid: process.getegid!(),
  }
}
