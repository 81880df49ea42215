/**
 * framepump upgrade: replaces a running daemon. The daemon starts its successor itself, when it still may
 * start programs; else this command does, as much in the daemon's place as it can.
 */
import { statSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { ControlClient } from '../control/client.ts'
import { FramepumpError } from '../errors.ts'
import { counted } from '../text.ts'
import { defaultControlPath } from './common.ts'
import type { Start } from './successor.ts'
import { startSuccessor } from './successor.ts'

/** For a successor that loads and prepares itself. */
const START_MS = 60_000
const LOOK_MS = 20
const NO_PARENT =
  'its manager does not see how it ends: a restart on failure takes an upgrade by the manager (systemd-run)'

export interface UpgradeOptions {
  readonly control?: string
  readonly json: boolean
}

interface Upgraded {
  readonly pid: number
  readonly release: string
  readonly 'pause-us': number
  readonly 'frames-lost': number
  readonly ports: readonly string[]
  /** What of the old daemon's the new one does not have. */
  readonly 'not-inherited'?: readonly string[]
}

export async function upgrade(
  options: readonly string[],
  { control, json }: UpgradeOptions,
): Promise<number> {
  const path = control ?? defaultControlPath()
  const client = await ControlClient.connect(path)
  try {
    const answer = (await client.execute('upgrade', { options })) as Upgraded | { start: Start }
    const upgraded = 'start' in answer ? await startAndMigrate(client, path, answer.start) : answer
    process.stdout.write(json ? `${JSON.stringify(upgraded, null, 2)}\n` : describe(upgraded))
    return 0
  } finally {
    client.close()
  }
}

function describe(upgraded: Upgraded): string {
  const { pid, release, ports, 'not-inherited': lacks = [] } = upgraded
  const lines = [
    `framepump ${release} runs as process ${pid}`,
    `frames lost: ${upgraded['frames-lost']}`,
    `pause: ${upgraded['pause-us']} us`,
    `moved: ${counted(ports.length, 'port')}${ports.length === 0 ? '' : ` (${ports.join(', ')})`}`,
    ...(lacks.length === 0 ? [] : [`not inherited: ${lacks.join(', ')}`]),
    ...(lacks.includes('parent') ? [NO_PARENT] : []),
  ]
  return `${lines.join('\n')}\n`
}

async function startAndMigrate(
  client: ControlClient,
  control: string,
  start: Start,
): Promise<Upgraded> {
  const before = (await client.execute('query-migrate-parameters')) as Record<string, unknown>
  const interrupted = new AbortController()
  // Whoever gives up on it leaves one of the two, and not both. The second time it is the end.
  const interrupt = (): void => {
    interrupted.abort(new FramepumpError('HAND_OVER', 'it was interrupted'))
    client.execute('migrate_cancel').catch(() => undefined)
  }
  process.once('SIGINT', interrupt)
  process.once('SIGTERM', interrupt)
  const left = markOf(start.path)
  let hasBegun = false
  let isDaemonGone = false
  client.events.once('close', () => (isDaemonGone = true))
  const successor = startSuccessor(start)
  try {
    const givenUp = AbortSignal.any([successor.ended, interrupted.signal])
    const result = await migrate(client, start, left, givenUp, () => (hasBegun = true))
    // It has nothing any more, and may be quicker than its answer.
    await client.execute('quit').catch(() => undefined)
    successor.leave()
    return { ...result, 'not-inherited': successor.lacks }
  } catch (error) {
    if (hasBegun && isDaemonGone) {
      // Whose the switch is the successor decides by itself, and as long as it has not, it watches us.
      const isTaken = await untilDecided(control, successor.ended)
      successor.leave()
      if (isTaken) throw new FramepumpError('HAND_OVER', 'the daemon has ended; its successor runs')
      throw error
    }
    successor.end()
    // They were for this time, and the daemon may be gone.
    const { 'backend-transfer': transfer, exclude } = before
    const parameters = { 'backend-transfer': transfer, exclude }
    await client.execute('migrate-set-parameters', parameters).catch(() => undefined)
    throw error
  }
}

async function migrate(
  client: ControlClient,
  { path, exclude, backendTransfer = true }: Start,
  left: string | undefined,
  givenUp: AbortSignal,
  begun: () => void,
): Promise<Upgraded> {
  await untilThere(path, left, givenUp)
  await client.execute('migrate-set-parameters', { 'backend-transfer': backendTransfer, exclude })
  const over = migrationOver(client)
  givenUp.throwIfAborted()
  begun()
  await client.execute('migrate', { uri: `unix:${path}` })
  const status = await over
  const { pid, release, ports, ...info } = (await client.execute('query-migrate')) as Upgraded & {
    readonly 'error-desc'?: string
  }
  if (status !== 'completed') {
    throw new FramepumpError('HAND_OVER', info['error-desc'] ?? `the hand-over has ${status}`)
  }
  const { 'pause-us': pauseUs, 'frames-lost': framesLost } = info
  return { pid, release, 'pause-us': pauseUs, 'frames-lost': framesLost, ports }
}

/** Of a successor that has lost its source: whether it answers in the place of that one; false: it has ended. */
async function untilDecided(control: string, ended: AbortSignal): Promise<boolean> {
  const end = performance.now() + START_MS
  while (!ended.aborted && performance.now() < end) {
    if (await answers(control)) return true
    await setTimeout(LOOK_MS)
  }
  return false
}

async function answers(control: string): Promise<boolean> {
  try {
    const client = await ControlClient.connect(control)
    await client.execute('query-status').finally(() => client.close())
    return true
  } catch {
    return false
  }
}

/** What tells the file of a socket from one that comes in its place; undefined: there is none. */
function markOf(path: string): string | undefined {
  const found = statSync(path, { bigint: true, throwIfNoEntry: false })
  return found === undefined ? undefined : `${found.ino} ${found.ctimeNs}`
}

/**
 * The successor listens there; `left`: somebody has left that file there before. Throws what `givenUp` was aborted
 * with, when that comes first.
 */
async function untilThere(
  path: string,
  left: string | undefined,
  givenUp: AbortSignal,
): Promise<void> {
  const end = performance.now() + START_MS
  const isThere = (mark: string | undefined): boolean => mark !== undefined && mark !== left
  while (!isThere(markOf(path))) {
    givenUp.throwIfAborted()
    if (performance.now() > end) {
      throw new FramepumpError('HAND_OVER', `the successor does not listen at ${path}`, {
        hint: 'its log says why',
      })
    }
    await setTimeout(LOOK_MS)
  }
}

/** How the daemon's hand-over ends. */
function migrationOver(client: ControlClient): Promise<string> {
  return new Promise((resolve) => {
    client.events.on('event', (name, { status }) => {
      const isOver = ['completed', 'failed', 'cancelled'].includes(String(status))
      if (name === 'MIGRATION' && isOver) resolve(String(status))
    })
    client.events.once('close', () => resolve('lost its source'))
  })
}
