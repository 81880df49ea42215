/** How scripts learn that a daemon is ready: a descriptor, or a command that waits. */
import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { CLI, IO, Lab, tapSpec } from '../../support/lab.ts'
import type { Background } from '../../support/processes.ts'
import { until } from '../../support/processes.ts'

const NODE = process.execPath

function bash(lab: Lab, script: string): Background {
  const cli = `${NODE} ${CLI}`
  return lab.background('bash', ['-c', script.replaceAll('FP', cli)], { FRAMEPUMP_IO: IO })
}

test('--wait-fd: a line when it is ready, then the end of the file', async () => {
  await using lab = new Lab()
  const control = lab.controlPath()
  const script = `
    coproc FP run --io ${IO} --control ${control} --wait-fd 3 3>&1 2>/dev/null >&2
    cat <&\${COPROC[0]}
    FP ctl --control ${control} query-status
    kill $COPROC_PID; wait $COPROC_PID; echo "code $?"`
  const run = bash(lab, script)
  expect(await run.exited).toBe(0)
  expect(run.stdout).toMatch(/^ready\n\{/)
  expect(run.stdout).toContain('"ready": true')
  expect(run.stdout).toContain('code 0')
})

test('--wait-fd: a start that fails says nothing, and closes it', async () => {
  await using lab = new Lab()
  const bad = '--port vhost-user,id=g,path=/proc/nowhere/g.sock'
  const script = `FP run --control ${lab.controlPath()} ${bad} --wait-fd 3 3>&1 2>/dev/null >&2 | cat; echo "end \${PIPESTATUS[0]}"`
  const run = bash(lab, script)
  expect(await run.exited).toBe(0)
  expect(run.stdout).toBe('end 1\n')
})

test('--wait-fd: what cannot be written or is not given is refused by name', async () => {
  await using lab = new Lab()
  const refused = async (fd: string, more = ''): Promise<string> => {
    const run = bash(lab, `FP run --control ${lab.controlPath()} --wait-fd ${fd} ${more}`)
    expect(await run.exited).toBe(2)
    return run.stderr
  }
  expect(await refused('1')).toContain(
    '--wait-fd 1: standard input, output and error are not closed',
  )
  expect(await refused('900')).toContain('--wait-fd 900: there is no such descriptor')
  expect(await refused('5', '5</dev/null')).toContain('--wait-fd 5: it is open for reading only')
  expect(await refused('x')).toContain("argument 'x' is invalid")
  // Whatever Node has there: its event loop, its own pipes.
  for (let fd = 3; fd < 16; fd++) {
    expect(await refused(String(fd))).toMatch(/there is no such|process's own|reading only/)
  }
  const taken = await refused('7', '--port tap,id=a,fd=7 7>/dev/null')
  expect(taken).toContain('file descriptor 7 is in use: --wait-fd')
})

test('--wait-fd: a reader that has gone, and a pipe that is full, hold nothing up', async () => {
  await using lab = new Lab()
  const control = lab.controlPath()
  for (const given of ['3> >(true)', '']) {
    const fill = `mkfifo fifo; exec 3<>fifo; head -c 65536 /dev/zero >&3`
    const script = `cd ${lab.directory}; ${given === '' ? fill : ':'}
      exec FP run --io ${IO} --control ${control} --wait-fd 3 ${given}`
    const run = bash(lab, script)
    await until('it is ready', () => run.stderr.includes('ready (control'))
    expect(await lab.background(NODE, [CLI, 'wait', '--control', control]).exited).toBe(0)
    expect(await run.stop()).toBe(0)
  }
})

test('wait: until all ports are open, not only until somebody answers', async () => {
  await using lab = new Lab()
  const control = lab.controlPath()
  const order = [CLI, 'wait', '--control', control, '--timeout', '50']
  const early = lab.background(NODE, order)
  const script = join(lab.directory, 'slow')
  const done = join(lab.directory, 'done')
  writeFileSync(script, `#!/bin/sh\nsleep 1.5\ntouch ${done}\n`)
  chmodSync(script, 0o755)
  const port = `${tapSpec(0, lab.netns())},script=${script}`
  lab.background(NODE, [CLI, 'run', '--io', IO, '--control', control, '--port', port])
  // It is there, and does not say that it is ready.
  let late: Background | undefined
  await until('it answers', async () => {
    late = lab.background(NODE, [CLI, 'wait', '--control', control, '--timeout', '1'])
    await late.exited
    return !late.stderr.includes('DAEMON_UNREACHABLE')
  })
  expect(await early.exited).toBe(0)
  expect(readFileSync(done, 'utf8')).toBe('')
  expect(early.stdout + early.stderr).toBe('')
})

test('wait: after the time-out it says what was missing, and its code which', async () => {
  await using lab = new Lab()
  const control = lab.controlPath()
  const nobody = lab.background(NODE, [CLI, 'wait', '--control', control, '--timeout', '1'])
  expect(await nobody.exited).toBe(3)
  expect(nobody.stderr).toMatch(
    /^framepump: cannot reach a daemon at .*: No such file or directory after 1 s \(start one .*\) \[DAEMON_UNREACHABLE\]\n$/,
  )
  // Somebody listens and says nothing.
  const mute = createServer().listen(control)
  const silent = lab.background(NODE, [CLI, 'wait', '--control', control, '--timeout', '1'])
  expect(await silent.exited).toBe(3)
  expect(silent.stderr).toContain('it does not answer after 1 s')
  mute.close()
  // Somebody is not ready.
  const starting = createServer((socket) => {
    // Whoever has waited long enough goes in the middle of an answer.
    socket.on('error', () => undefined)
    socket.write('{"QMP": {}}\r\n')
    let text = ''
    socket.on('data', (data) => {
      text += data.toString()
      for (let end; (end = text.indexOf('\n')) >= 0; text = text.slice(end + 1)) {
        const { id } = JSON.parse(text.slice(0, end)) as { id: number }
        socket.write(`${JSON.stringify({ return: { ready: false }, id })}\r\n`)
      }
    })
  }).listen(control)
  // We have to answer in that time, which a machine that is busy may not let us.
  for (const timeout of [2, 8, 30]) {
    const order = [CLI, 'wait', '--control', control, '--timeout', String(timeout)]
    const waiting = lab.background(NODE, order)
    if ((await waiting.exited) !== 1 && timeout < 30) continue
    expect(await waiting.exited).toBe(1)
    const told = new RegExp(`has not opened its ports after ${timeout} s .*\\[NOT_READY\\]\n$`)
    expect(waiting.stderr).toMatch(told)
    break
  }
  starting.close()
})
