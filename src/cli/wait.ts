/** framepump wait: until a daemon is ready, for scripts. */
import { ControlClient } from '../control/client.ts'
import { FramepumpError } from '../errors.ts'
import { defaultControlPath } from './common.ts'

/** Between two tries. */
const INTERVAL_MS = 50

export interface WaitOptions {
  readonly control?: string
  /** Seconds. */
  readonly timeout: number
}

export async function wait({ control, timeout }: WaitOptions): Promise<number> {
  const path = control ?? defaultControlPath()
  const deadline = AbortSignal.timeout(timeout * 1000)
  let failure: FramepumpError | undefined
  do {
    try {
      if (await isReady(path, deadline)) return 0
      failure = new FramepumpError('NOT_READY', `the daemon at ${path} has not opened its ports`, {
        hint: 'its log says what it waits for',
      })
    } catch (error) {
      if (!(error instanceof FramepumpError) || error.code !== 'DAEMON_UNREACHABLE') throw error
      // What was cut off at the end says less than an answer before it.
      if (!deadline.aborted || failure === undefined) failure = error
    }
    await new Promise((resolve) => setTimeout(resolve, INTERVAL_MS))
  } while (!deadline.aborted)
  failure.message += ` after ${timeout} s`
  throw failure
}

async function isReady(path: string, deadline: AbortSignal): Promise<boolean> {
  const client = await ControlClient.connect(path, deadline)
  try {
    const { ready } = (await client.execute('query-status')) as { readonly ready?: boolean }
    // One that does not know the word is older.
    return ready !== false
  } finally {
    client.close()
  }
}
