/** The daemon's log: its levels and formats, and who chooses them. */
import { spawn } from 'node:child_process'
import { fstatSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { once } from 'node:events'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { shim } from '../../../src/native/shim.ts'
import { CLI, IO, Lab } from '../../support/lab.ts'
import { until, words } from '../../support/processes.ts'

const SOCK_STREAM = 1
const ESC = '\u001b'

interface Result {
  readonly code: number
  readonly lines: string[]
}

/** A daemon until it is ready, or has failed; `act` while it is there. */
async function run(
  lab: Lab,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
  act: (control: string) => Promise<void> = async () => undefined,
): Promise<Result> {
  const control = lab.controlPath()
  const daemon = lab.background(
    process.execPath,
    [CLI, 'run', '--io', IO, '--control', control, ...args],
    env,
  )
  await until('it is ready', () => !daemon.isRunning || /ready \(control/.test(daemon.stderr))
  if (daemon.isRunning) await act(control)
  const code = await daemon.stop()
  return { code, lines: daemon.stderr.split('\n').slice(0, -1) }
}

const TEXT = /^\d{4}-\d\d-\d\dT[\d:.]+Z switch: started io=/

test('text with a time is what there is without a journal, and without colour in a pipe', async () => {
  await using lab = new Lab()
  const { lines } = await run(lab, ['--port', 'pcap,id=r,record=/dev/null'])
  expect(lines[0]).toMatch(TEXT)
  expect(lines).toContainEqual(expect.stringMatching(/Z pcap r: opened path=/))
  expect(lines).toContainEqual(expect.stringMatching(/^framepump: ready \(control .*\)$/))
  expect(lines.join('\n')).not.toContain(ESC)
})

test('json is an object in each line, with the parts of the line', async () => {
  await using lab = new Lab()
  const { lines } = await run(lab, words('--log-format json --port pcap,id=r,record=/dev/null'))
  const objects = lines.map((line) => JSON.parse(line) as Record<string, string>)
  for (const one of objects) {
    expect(new Date(one['time']).toISOString()).toBe(one['time'])
    expect(one['level']).toMatch(/^(info|warning)$/)
  }
  expect(objects).toContainEqual(
    expect.objectContaining({
      component: 'pcap',
      port: 'r',
      message: expect.stringMatching(/^opened /),
    }),
  )
  expect(objects).toContainEqual(
    expect.objectContaining({
      component: 'framepump',
      message: expect.stringMatching(/^ready \(control /),
    }),
  )
})

test('a start that fails is told in the format of the log, also one of the config file', async () => {
  await using lab = new Lab()
  const file = join(lab.directory, 'switch.yaml')
  writeFileSync(file, 'log-format: json\nlog-level: error\nports: []\n')
  const bad = ['--port', 'vhost-user,id=g,path=/proc/nowhere/g.sock']
  const { code, lines } = await run(lab, ['--config', file, ...bad])
  expect(code).toBe(1)
  expect(lines).toHaveLength(1)
  expect(JSON.parse(lines[0])).toMatchObject({ level: 'error', component: 'framepump' })
  // The command line goes before the file.
  const other = await run(lab, ['--config', file, '--log-format', 'journald', ...bad])
  expect(other.lines).toEqual([expect.stringMatching(/^<3>framepump: .*\[VHOST_USER_SOCKET\]$/)])
})

test('levels: debug has each command, warning only what is wrong', async () => {
  await using lab = new Lab()
  const ask = async (control: string): Promise<void> => {
    for (const words of [['netdev_add', 'type=pcap', 'id=w', 'record=/dev/null'], ['nonsense']]) {
      await lab.background(process.execPath, [CLI, 'ctl', '--control', control, ...words]).exited
    }
    const remove = ['netdev_del', 'id=missing']
    await lab.background(process.execPath, [CLI, 'ctl', '--control', control, ...remove]).exited
  }
  const all = await run(lab, ['--log-level', 'debug', '--log-format', 'journald'], {}, ask)
  expect(all.lines).toContainEqual(
    expect.stringMatching(/^<7>control: netdev_add id=w ms=\d+\.\d$/),
  )
  expect(all.lines).toContainEqual(
    expect.stringMatching(/^<7>control: netdev_del id=missing ms=\S+ error=".*PORT_NOT_FOUND/),
  )
  expect(all.lines).toContainEqual(expect.stringMatching(/^<6>pcap w: opened /))
  const few = await run(lab, ['--log-level', 'warning', '--privileges', 'off'], {}, ask)
  expect(few.lines).toEqual([expect.stringMatching(/^framepump: ready /)])
})

test('journald is chosen when standard error is the journal’s socket, by device and inode', async () => {
  await using lab = new Lab()
  const directory = mkdtempSync('/tmp/framepump-journal-')
  try {
    const path = join(directory, 'stdout')
    /** Of the connection that was made last. */
    let text = ''
    let isOver = false
    const server = createServer((socket) => {
      socket.on('data', (data) => (text += data.toString())).on('close', () => (isOver = true))
    })
    server.listen(path)
    await once(server, 'listening')
    const start = async (off: bigint): Promise<string> => {
      text = ''
      isOver = false
      const fd = shim.socketUnix(SOCK_STREAM)
      expect(shim.connectUnix(fd, path)).toBe(0)
      shim.setStatusFlags(fd, 0)
      const { dev, ino } = fstatSync(fd, { bigint: true })
      const child = spawn(process.execPath, [CLI, 'run', '--control', lab.controlPath()], {
        stdio: ['ignore', 'ignore', fd],
        env: { ...process.env, JOURNAL_STREAM: `${dev}:${ino + off}` },
      })
      shim.close(fd)
      const ended = once(child, 'exit')
      await until('it is ready', () => text.includes('ready (control'))
      child.kill()
      await ended
      await until('all is read', () => isOver)
      return text
    }
    const told = await start(0n)
    expect(told.split('\n')[0]).toMatch(/^<6>switch: started io=/)
    expect(told).toMatch(/^<6>framepump: ready \(control /m)
    // Inherited from a service, but not its standard error any more.
    expect((await start(1n)).split('\n')[0]).toMatch(TEXT)
    server.close()
  } finally {
    rmSync(directory, { recursive: true })
  }
})

test('colour is for terminals, unless NO_COLOR or FORCE_COLOR says otherwise', async () => {
  await using lab = new Lab()
  const forced = await run(lab, [], { FORCE_COLOR: '1' })
  expect(forced.lines[0]).toContain(`Z${ESC}[0m switch: started`)
  // On a terminal of its own.
  const onTerminal = async (env: NodeJS.ProcessEnv): Promise<string> => {
    const out = join(lab.directory, 'typescript')
    const command = `${process.execPath} ${CLI} run --control ${lab.controlPath()}`
    const pty = lab.terminal(command, env, out)
    await until('it is ready', () => pty.stdout.includes('ready (control'))
    pty.child.stdin!.write('\u0003')
    expect(await pty.exited).toBe(0)
    return readFileSync(openSync(out, 'r'), 'utf8')
  }
  const none = { NO_COLOR: undefined, FORCE_COLOR: undefined }
  expect(await onTerminal(none)).toContain(`${ESC}[2m`)
  expect(await onTerminal({ ...none, NO_COLOR: '1' })).not.toContain(`${ESC}[`)
  expect(await onTerminal({ ...none, TERM: 'dumb' })).not.toContain(`${ESC}[`)
})
