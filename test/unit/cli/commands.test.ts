/** The table of commands, and what is made of it. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Command } from 'commander'
import { makeProgram } from '../../../src/cli/commands.ts'
import type { Actions } from '../../../src/cli/commands.ts'
import { completionScript, SHELLS } from '../../../src/cli/completion.ts'
import { topicHelp, TOPICS } from '../../../src/cli/topics.ts'
import { COMMANDS } from '../../../src/control/commands.ts'
import { PORT_SCHEMAS } from '../../../src/port/kinds.control.ts'
import type { PortSchema } from '../../../src/port/port-schema.ts'
import { ROOT } from '../../support/lab.ts'
import { sh } from '../../support/processes.ts'

const actions = new Proxy({} as Actions, { get: () => async () => 0 })
const program = makeProgram(actions, () => undefined, '1.2.3')
const words = { controlCommands: COMMANDS.map(({ name }) => name), topics: TOPICS }

describe('help', () => {
  const commands = program.commands.map((command): [string, Command] => [command.name(), command])

  test.each(commands)('of %s tells what each option is, and what it is without', (_, command) => {
    const help = command.createHelp()
    for (const argument of command.registeredArguments) expect(argument.description).not.toBe('')
    for (const option of help.visibleOptions(command)) {
      const text = help.optionDescription(option)
      expect(option.description).not.toBe('')
      const isSwitch = !option.required && !option.optional
      if (!isSwitch)
        expect([option.flags, text]).toEqual([
          option.flags,
          expect.stringMatching(/default: |required/),
        ])
    }
    expect(command.description()).not.toBe('')
  })

  test('of numbers tells the unit', () => {
    const numbers = program.commands.flatMap((command) =>
      command.options.filter(({ flags }) => /seconds|bytes|frames|<n>/.test(flags)),
    )
    expect(numbers.length).toBeGreaterThan(4)
    for (const { flags, description } of numbers) {
      expect([flags, description]).toEqual([flags, expect.stringMatching(/second|byte|frame/)])
    }
  })
})

describe('help on what is no command', () => {
  test.each(TOPICS)('%s: every option or argument, within 80 columns', (topic) => {
    const text = topicHelp(topic, program)!
    const schema = PORT_SCHEMAS[topic] as PortSchema | undefined
    const members = schema?.options ?? COMMANDS.find(({ name }) => name === topic)!.arguments
    for (const name of Object.keys(members)) {
      expect(text).toMatch(new RegExp(`^  ${name} `, 'm'))
    }
    expect(text).not.toContain('`')
    const items = text.split('\n').filter((line) => line.startsWith('  '))
    for (const line of items) expect(line.length).toBeLessThanOrEqual(80)
  })

  test('tells what an option may be, and what it is without', () => {
    expect(topicHelp('tap', program)).toMatch(/^ {2}queues .*\n +1\.\.256 \(default: 1\)$/m)
    expect(topicHelp('vhost-user', program)).toMatch(/\(required\)$/m)
    expect(topicHelp('nothing', program)).toBeUndefined()
    expect(topicHelp('constructor', program)).toBeUndefined()
  })
})

test('man shows the page without a warning, and the page has every command and option', () => {
  const page = join(ROOT, 'config/framepump.1')
  const shown = spawnSync('man', ['--warnings', '-l', page], {
    encoding: 'utf8',
    env: { ...process.env, MANWIDTH: '200', MAN_KEEP_FORMATTING: '', LC_ALL: 'C.UTF-8' },
  })
  expect({ status: shown.status, stderr: shown.stderr }).toEqual({ status: 0, stderr: '' })
  for (const command of program.commands) {
    expect(shown.stdout).toContain(`framepump ${command.name()}`)
    for (const { long } of command.options) expect(shown.stdout).toContain(long)
  }
})

/** What bash offers for a line; the last word is the one that is being written. */
function offered(line: string, path = process.env['PATH']): string[] {
  const script = `${completionScript(program, 'bash', words)}
    COMP_WORDS=(${line}); COMP_CWORD=$(( \${#COMP_WORDS[@]} - 1 ))
    compopt() { echo "compopt $*"; }
    _framepump; printf '%s\\n' "\${COMPREPLY[@]}"`
  const run = spawnSync('bash', ['-c', script], {
    encoding: 'utf8',
    env: { ...process.env, PATH: path },
  })
  expect(run.stderr).toBe('')
  return run.stdout.split('\n').filter((word) => word !== '')
}

describe('completion', () => {
  test('bash: commands, options, choices, files, commands of the control socket', () => {
    expect(offered(`framepump ''`)).toEqual(expect.arrayContaining(['run', 'show', '--version']))
    expect(offered('framepump sh')).toEqual(['show'])
    expect(offered('framepump show p')).toEqual(['ports', 'policy', 'privileges'])
    expect(offered('framepump run --lo')).toEqual(['--log-level', '--log-format'])
    expect(offered('framepump run --log-level w')).toEqual(['warning'])
    expect(offered(`framepump run --config ''`)).toEqual(['compopt -o default'])
    expect(offered('framepump ctl netdev_')).toEqual(['netdev_add', 'netdev_del'])
    expect(offered('framepump help b')).toEqual(['bench'])
    expect(offered('framepump help ta')).toEqual(['tap'])
    expect(offered('framepump completion z')).toEqual(['zsh'])
    expect(offered(`framepump wait --timeout ''`)).toEqual([])
  })

  test('bash: ids of ports are asked of the daemon that the line names', () => {
    const bin = mkdtempSync('/tmp/framepump-completion-')
    try {
      const answer = JSON.stringify(
        [{ id: 'vm1', peer: 'x', sub: { id: 'no' } }, { id: 'vm2' }],
        null,
        2,
      )
      const script = `#!/bin/sh\n[ "$*" = "ctl query-ports --control /x/y.sock" ] && cat <<'E'\n${answer}\nE\n`
      writeFileSync(join(bin, 'framepump'), script, { mode: 0o755 })
      const path = `${bin}:${process.env['PATH']}`
      expect(offered('framepump capture --control /x/y.sock -i v', path)).toEqual(['vm1', 'vm2'])
      expect(offered('framepump capture -i v', path)).toEqual([])
    } finally {
      rmSync(bin, { recursive: true })
    }
  })

  const installed = SHELLS.filter((shell) => spawnSync(shell, ['-c', 'true']).status === 0)

  test.each(installed)('%s takes the script', (shell) => {
    const script = completionScript(program, shell, words)
    const run = spawnSync(shell, ['-n'], { input: script, encoding: 'utf8' })
    expect({ error: run.error, status: run.status, stderr: run.stderr }).toEqual({
      error: undefined,
      status: 0,
      stderr: '',
    })
  })

  test.skipIf(!installed.includes('zsh'))(
    'zsh (if it is installed) offers commands, options and choices on a terminal',
    () => {
      const directory = mkdtempSync('/tmp/framepump-completion-')
      try {
        writeFileSync(join(directory, '_framepump'), completionScript(program, 'zsh', words))
        const shown = (line: string): string => {
          const script = `zmodload zsh/zpty
          zpty z 'TERM=dumb PS1=READY\\> zsh -f -i'
          zpty -w z "fpath=(${directory} \\$fpath); autoload -Uz compinit; compinit -u -D; zstyle ':completion:*' list-prompt ''; LISTMAX=9999; stty cols 200; print GO"
          zpty -r -m z x '*GO*GO*READY*' ; zpty -n -w z $'${line}\\t\\t'; zpty -n -w z $'\\x15print E''ND\\n'
          zpty -r -m z out '*END*'; print -r -- $out`
          return sh('zsh', '-f', '-c', script)
        }
        expect(shown('framepump ')).toMatch(/capture.*live capture[^]*show/)
        const subjects = shown('framepump show ')
        for (const subject of ['links', 'macs', 'vlans']) expect(subjects).toContain(subject)
        expect(shown('framepump run --log-level ')).toMatch(/debug[^]*error[^]*warning/)
      } finally {
        rmSync(directory, { recursive: true })
      }
    },
  )
})
