/** framepump bench: compiles bench/ of the checkout and runs it in a process of its own. */
import { spawn, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { EXIT_FAILED, MachineError } from './common.ts'

export interface BenchOptions {
  readonly rows?: string
  readonly peers?: string
  readonly json?: string
  readonly quick?: boolean
  readonly check?: boolean
}

export async function bench(options: BenchOptions): Promise<number> {
  const root = fileURLToPath(new URL('../..', import.meta.url))
  const compiler = `${root}/node_modules/.bin/tsc`
  if (!existsSync(`${root}/bench/main.ts`) || !existsSync(compiler)) {
    throw new MachineError(
      'the benchmarks are not installed',
      'run them in a checkout, after npm ci',
    )
  }
  const out = `${root}/bench/results/js`
  const compiled = spawnSync(compiler, ['-p', `${root}/bench/tsconfig.build.json`], {
    stdio: 'inherit',
  })
  if (compiled.status !== 0) return EXIT_FAILED
  const args = [
    ...(options.rows === undefined ? [] : ['--rows', options.rows]),
    ...(options.peers === undefined ? [] : ['--peers', options.peers]),
    ...(options.json === undefined ? [] : ['--json', options.json]),
    ...(options.quick === true ? ['--quick'] : []),
    ...(options.check === true ? ['--check'] : []),
  ]
  const child = spawn(process.execPath, [`${out}/bench/main.js`, ...args], { stdio: 'inherit' })
  return new Promise((resolve) => child.once('exit', (code) => resolve(code ?? EXIT_FAILED)))
}
