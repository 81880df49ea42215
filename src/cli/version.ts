/** framepump version: what a bug report needs to tell. */
import { arch, machine, release, type } from 'node:os'
import { probe } from '../io/probe.ts'
import { shimFailure, shimPath } from '../native/shim.ts'
import { printable, printableJson } from '../switch/printable.ts'
import { packageVersion } from './common.ts'
import { formatTable } from './table.ts'

export async function version(options: { readonly json?: boolean }): Promise<number> {
  const facts = {
    framepump: packageVersion(),
    node: `${process.version} (V8 ${process.versions.v8}, ${arch()})`,
    kernel: `${type()} ${release()} ${machine()}`,
    io: io(),
    shim: shimFailure === undefined ? shimPath : `none: ${shimFailure.message}`,
  }
  if (options.json === true) process.stdout.write(`${printableJson(facts, 2)}\n`)
  else {
    const [first, ...rest] = Object.entries(facts)
    process.stdout.write(`${formatTable(first, rest)}\n`)
  }
  return 0
}

/** The tier that `--io auto` takes here. */
function io(): string {
  if (shimFailure !== undefined) return 'none without the shim'
  const { auto, why } = probe()
  return printable(`${auto.name} (${why})`)
}
