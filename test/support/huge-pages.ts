/**
 * Huge pages, which are the machine's: test files that run at the same time share its pool. Each adds its own pages and
 * takes no more than these away again, so that none is left without those that it has not touched yet.
 */
import { execFileSync } from 'node:child_process'

const NR_HUGEPAGES = '/proc/sys/vm/nr_hugepages'
/** Adds `$1` pages; prints how many the kernel had to give. Nobody else changes the number between the two. */
const ADD = `before=$(cat ${NR_HUGEPAGES}) && echo $((before + $1)) >${NR_HUGEPAGES}
  echo $(($(cat ${NR_HUGEPAGES}) - before))`

/** Pages of 2 MiB, borrowed until `putBack`. */
export class HugePages {
  readonly #count: number

  constructor(count: number) {
    this.#count = add(count)
    if (this.#count === count) return
    this.putBack()
    throw new Error(`the machine has ${this.#count} huge pages to give of ${count}`)
  }

  putBack(): void {
    add(-this.#count)
  }
}

function add(count: number): number {
  const printed = execFileSync('flock', [NR_HUGEPAGES, 'sh', '-c', ADD, 'sh', String(count)])
  return Number(printed.toString())
}
