/**
 * The kernel's grouping of tasks by session (sched(7), autogroup), off for the time of a test. A successor has a
 * session of its own, and so a share of the processor of its own. On a machine of two that other sessions kept busy
 * all of its threads could run and did not for 11 to 28 seconds (Linux 6.18), which is no pause of a hand-over: each
 * had waited so long for a processor (schedstat), and at the same time those of another session that had nothing
 * to do with it. Where a service manager puts a daemon into a cgroup there is none of that.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'

const ENABLED = '/proc/sys/kernel/sched_autogroup_enabled'

export class NoAutogroup {
  readonly #before: string | undefined

  constructor() {
    if (!existsSync(ENABLED)) return
    this.#before = readFileSync(ENABLED, 'utf8')
    writeFileSync(ENABLED, '0')
  }

  /** The machine has it as before. */
  putBack(): void {
    if (this.#before !== undefined) writeFileSync(ENABLED, this.#before)
  }
}
