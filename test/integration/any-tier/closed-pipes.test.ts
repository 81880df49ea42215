/** Every command ends quietly when nobody reads its output any more. */
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { CLI, IO, Lab } from '../../support/lab.ts'
import { until } from '../../support/processes.ts'

/** Commands whose output somebody may read; CONTROL is the path of a daemon. */
const COMMANDS: readonly string[] = [
  '--help',
  '--version',
  'help show',
  'version',
  'completion zsh',
  'show ports --watch --control CONTROL',
  'run --help',
  `run --check --port tap,id=a`,
  'doctor',
  'doctor --json',
  ...['ports', 'macs', 'stats', 'links', 'offloads'].flatMap((subject) => [
    `show ${subject} --control CONTROL`,
    `show ${subject} --json --control CONTROL`,
  ]),
  'ctl query-commands --control CONTROL',
  'capture -w - --control CONTROL',
  `demo --io ${IO} --seconds 600 --capture CAPTURE`,
]
/** Ways to go: before the first byte, after it, after the first line. */
const READERS = ['true', 'head -c 1', 'head -1'] as const
/** Less than the demo goes on as long as it has a reader. */
const END_MS = 50_000
const PARALLEL = 4
const CAPTURED = /^framepump: \d+ frames captured, \d+ dropped\n$/

interface Result {
  readonly code: number
  readonly stderr: string
}

let count = 0

/** In the environment of all that these tests start, and of what that starts. */
const MARK = `closed-pipes-${process.pid}`

function marked(): string[] {
  return readdirSync('/proc').filter((name) => {
    try {
      return readFileSync(`/proc/${name}/environ`, 'utf8').includes(MARK)
    } catch {
      // No process, or one that has just ended.
      return false
    }
  })
}

/** Runs the command with the reader behind it. */
async function pipe(lab: Lab, command: string, reader: string): Promise<Result> {
  const err = join(lab.directory, `err${count++}`)
  const line = `"${process.execPath}" "${CLI}" ${command} 2>"${err}" | ${reader} >/dev/null; exit \${PIPESTATUS[0]}`
  const run = lab.background('bash', ['-c', line], { FRAMEPUMP_TEST_MARK: MARK })
  await until(`it ends: ${command} | ${reader}`, () => !run.isRunning, END_MS)
  return { code: await run.exited, stderr: readFileSync(err, 'utf8') }
}

test.each(READERS)(
  'every command, its output read by `%s`',
  async (reader) => {
    await using lab = new Lab()
    const { daemon } = await lab.star(2)
    const capture = join(lab.directory, 'demo.pcapng')
    const waiting = [...COMMANDS]
    const work = async (): Promise<void> => {
      for (let command; (command = waiting.shift()) !== undefined;) {
        const filled = command.replace('CONTROL', daemon.control).replace('CAPTURE', capture)
        const result = await pipe(lab, filled, reader)
        const told = command.startsWith('capture') ? CAPTURED : /^$/
        const stderr: unknown = expect.stringMatching(told)
        expect({ command, ...result }).toEqual({ command, code: 0, stderr })
      }
    }
    await Promise.all(Array.from({ length: PARALLEL }, work))
    // The demo's namespaces live as long as processes in them do.
    await until('nobody is left behind', () => marked().length === 0)
    expect(await daemon.process.stop()).toBe(0)
  },
  240_000,
)

test('a benchmark whose reader goes', async () => {
  await using lab = new Lab()
  const result = await pipe(lab, 'bench --rows nonsense', 'true')
  const stderr: unknown = expect.stringMatching(/^framepump: no row "nonsense"/)
  expect(result).toEqual({ code: 2, stderr })
})

test('an error is told to nobody, when nobody reads errors either', async () => {
  await using lab = new Lab()
  const line = `("${process.execPath}" "${CLI}" show ports --control /nowhere; echo $? >"${lab.directory}/rc") 2>&1 | true`
  spawnSync('bash', ['-c', line], { timeout: END_MS })
  expect(readFileSync(join(lab.directory, 'rc'), 'utf8')).toBe('3\n')
})

test('a full disk under standard output is a failure that is told', async () => {
  await using lab = new Lab()
  const err = join(lab.directory, 'err')
  const line = `"${process.execPath}" "${CLI}" doctor >/dev/full 2>"${err}"`
  expect(spawnSync('bash', ['-c', line], { timeout: END_MS }).status).toBe(1)
  expect(readFileSync(err, 'utf8')).toBe('framepump: standard output: No space left on device\n')
})

test('a capture that the daemon refuses ends, whatever is wrong with it', async () => {
  await using lab = new Lab()
  const { daemon } = await lab.star(1)
  const file = join(lab.directory, 'c.pcapng')
  writeFileSync(file, '')
  for (const [options, says] of [
    [`-i nobody -w ${file}`, `Device 'nobody' not found`],
    [`-s 999999 -w ${file}`, 'snap length must be'],
    [`-w ${lab.directory}/no/such/c.pcapng`, 'cannot create'],
  ]) {
    const { code, stderr } = await pipe(
      lab,
      `capture --control ${daemon.control} ${options}`,
      'cat',
    )
    expect({ options, code: code > 0 && code < 3, stderr }).toEqual({
      options,
      code: true,
      stderr: expect.stringMatching(new RegExp(`^framepump: .*${says}`)),
    })
  }
})
