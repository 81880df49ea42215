/** Checkouts to pack and empty projects to install into, all below one directory. */
import { execFileSync, spawnSync } from 'node:child_process'
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { ROOT } from '../support/lab.ts'

export interface Result {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  readonly cwd?: string
  readonly env?: NodeJS.ProcessEnv
  readonly path?: string
}

/** What a Debian without build-essential has not. */
const COMPILER = /^(.*-)?(cc|c\+\+|gcc|g\+\+|c89|c99|clang|tcc|make|gmake|cpp|ld|as)(-[\d.]+)?$/

export class Workplace {
  readonly directory: string = mkdtempSync(join(tmpdir(), 'framepump-package-'))
  /** A PATH of what is on this one, without compilers and make. */
  readonly bare: string

  constructor() {
    // Other users read it as well.
    chmodSync(this.directory, 0o755)
    this.bare = this.make('bare')
    const directories = [dirname(process.execPath), '/usr/bin', '/bin', '/usr/sbin', '/sbin']
    for (const from of directories) {
      for (const name of readdirSync(from)) {
        if (COMPILER.test(name)) continue
        try {
          symlinkSync(join(from, name), join(this.bare, name))
        } catch {
          // Found before, as on PATH.
        }
      }
    }
  }

  make(name: string): string {
    const directory = join(this.directory, name)
    mkdirSync(directory, { recursive: true })
    return directory
  }

  /** The files of this checkout as they are, committed in a repository of their own. */
  checkout(name: string): string {
    const directory = this.make(name)
    const git = ['-c', 'user.name=test', '-c', 'user.email=test@localhost']
    const sources = execFileSync(
      'git',
      ['ls-files', '-z', '--cached', '--others', '--exclude-standard', '--deduplicate'],
      { cwd: ROOT },
    )
    execFileSync('sh', ['-c', `tar -c --null --ignore-failed-read -T - | tar -x -C ${directory}`], {
      cwd: ROOT,
      input: sources,
      stdio: ['pipe', 'ignore', 'ignore'],
    })
    execFileSync('git', ['init', '-q'], { cwd: directory })
    execFileSync('git', ['add', '-A'], { cwd: directory })
    execFileSync('git', [...git, 'commit', '-q', '-m', 'as it is'], { cwd: directory })
    return directory
  }

  /** An empty project with the package installed from `source`. */
  project(name: string, source: string, path?: string): string {
    const directory = this.make(name)
    writeFileSync(join(directory, 'package.json'), '{ "private": true, "type": "module" }\n')
    const options = { cwd: directory, ...(path === undefined ? {} : { path }) }
    must('npm', ['install', '--prefer-offline', '--no-audit', source], options)
    return directory
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true })
  }
}

export function run(program: string, args: readonly string[], options: RunOptions = {}): Result {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    encoding: 'utf8',
    cwd: options.cwd,
    env: clean({ ...options.env, ...(options.path === undefined ? {} : { PATH: options.path }) }),
  })
  if (error !== undefined) throw error
  return { status, stdout, stderr }
}

/** Standard output and error of what must not fail. */
export function must(program: string, args: readonly string[], options?: RunOptions): string {
  const { status, stdout, stderr } = run(program, args, options)
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${status}\n${stdout}${stderr}`)
  return stdout + stderr
}

/** Without what npm and the suites have set for this process: a user's shell. */
function clean(more: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const own = Object.entries(process.env).filter(
    ([name]) =>
      !/^(npm_config_(?!registry|userconfig|cache)|npm_(?!config)|FRAMEPUMP_(?!MUSL)|INIT_CWD|NODE_|VITEST|CC$)/.test(
        name,
      ),
  )
  return { ...Object.fromEntries(own), ...more }
}
