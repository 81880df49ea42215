/**
 * Markdown files of the repository: their links, and their shell blocks, run as somebody pastes them.
 * A block that cannot run has a comment before it that says why: `<!-- not run: why -->`.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Lab } from './lab.ts'
import { CLI, ROOT } from './lab.ts'
import { Background } from './processes.ts'

export interface Block {
  readonly file: string
  /** Text of the heading that it stands below. */
  readonly heading: string
  readonly text: string
  /** Why it is not run. */
  readonly reason?: string
}

/** Blocks of a language, in order. */
export function blocksOf(file: string, language = 'sh'): Block[] {
  const text = readFileSync(join(ROOT, file), 'utf8')
  const parts =
    /^#+ (?<heading>.*)$|(?:^<!-- not run: (?<reason>.*) -->\n\n)?^```(?<info>.*)\n(?<body>[^]*?)^```$/gm
  const blocks: Block[] = []
  let heading = ''
  for (const { groups } of text.matchAll(parts)) {
    if (groups!['heading'] !== undefined) heading = groups!['heading']
    else if (groups!['info'] === language) {
      const { body, reason } = groups!
      blocks.push({ file, heading, text: body, ...(reason === undefined ? {} : { reason }) })
    }
  }
  return blocks
}

/** Blocks that are pasted into one shell: those below one heading. */
export function sessionsOf(file: string): Map<string, Block[]> {
  const sessions = new Map<string, Block[]>()
  for (const block of blocksOf(file)) {
    if (block.reason !== undefined) continue
    sessions.set(block.heading, [...(sessions.get(block.heading) ?? []), block])
  }
  return sessions
}

export interface Pasted {
  readonly exit: number
  readonly stdout: string
  readonly stderr: string
}

/**
 * Runs blocks in one shell, as root of a machine that is this one but for its processes, network
 * interfaces and /run, in a directory of their own: what they leave ends with them. `framepump` is on
 * PATH. The first line that fails ends it.
 */
export async function paste(
  lab: Lab,
  blocks: readonly Block[],
  before = '',
  after = '',
): Promise<Pasted> {
  const bin = join(lab.directory, 'bin')
  mkdirSync(bin, { recursive: true })
  const run = `#!/bin/sh\nexec '${process.execPath}' '${CLI}' "$@"\n`
  writeFileSync(join(bin, 'framepump'), run, { mode: 0o755 })
  const script = [
    'set -e',
    'mount -t tmpfs none /run; ip link set lo up; cd "$LAB"',
    before,
    'set -m',
    ...blocks.map(({ text }) => text),
    after,
    'kill $(jobs -p) 2>/dev/null || true',
    'wait',
  ]
  const args = ['--mount', '--net', '--pid', '--fork', '--kill-child', '--mount-proc']
  const shell = new Background('unshare', [...args, 'bash', '-c', script.join('\n')], {
    LAB: lab.directory,
    PATH: `${bin}:${process.env['PATH']}`,
  })
  return { exit: await shell.exited, stdout: shell.stdout, stderr: shell.stderr }
}
