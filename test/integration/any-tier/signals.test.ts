/** Signals that are not for ending, from the first line of JavaScript on: nothing is opened, nobody dies. */
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { CLI, IO, Lab, NODES, ROOT } from '../../support/lab.ts'
import type { Background } from '../../support/processes.ts'
import { until } from '../../support/processes.ts'

const NUMBERS = { SIGHUP: 1, SIGUSR1: 10, SIGUSR2: 12 } as const
const SIGTERM = 15
type Sent = keyof typeof NUMBERS

/** The process does not die of the signal any more: Node blocks it, or somebody listens. */
function survives(pid: number, signal: Sent): boolean {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    const has = (field: string, number: number): boolean => {
      const mask = new RegExp(`^${field}:\\s*([0-9a-f]+)`, 'm').exec(status)![1]
      return (BigInt(`0x${mask}`) & (1n << BigInt(number - 1))) !== 0n
    }
    // Between fork and exec all signals are blocked.
    if (has('SigBlk', SIGTERM)) return false
    return has('SigBlk', NUMBERS[signal]) || has('SigCgt', NUMBERS[signal])
  } catch {
    return false
  }
}

/** TCP sockets that listen in the network namespace of the process: there is no other in it. */
function listening(pid: number): string[] {
  const rows = readFileSync(`/proc/${pid}/net/tcp`, 'utf8').split('\n').slice(1)
  return rows.filter((row) => row.trim().split(/\s+/)[3] === '0A')
}

/** Sends signals as soon as they do not kill, every millisecond, until `isOver`. */
async function storm(
  run: Background,
  signals: readonly Sent[],
  isOver: () => boolean,
): Promise<void> {
  const pid = run.child.pid!
  const deadline = Date.now() + 50_000
  while (!signals.every((signal) => survives(pid, signal))) {
    if (Date.now() > deadline || !run.isRunning) throw new Error(`no handler: ${run.stderr}`)
    await new Promise((resolve) => setImmediate(resolve))
  }
  while (!isOver()) {
    if (Date.now() > deadline || !run.isRunning) throw new Error(`it ended: ${run.stderr}`)
    for (const signal of signals) run.child.kill(signal)
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
}

describe.each(NODES)('on %s', (node) => {
  const commands: readonly (readonly [string, string[]])[] = [
    ['run', ['run', '--io', IO]],
    ['demo', ['demo', '--io', IO, '--seconds', '600']],
  ]
  test.each(commands)('SIGUSR1 opens no inspector in %s, whenever it comes', async (name, args) => {
    await using lab = new Lab()
    const netns = lab.netns()
    const more =
      name === 'run'
        ? ['--control', lab.controlPath()]
        : ['--capture', join(lab.directory, 'demo.pcapng')]
    const run = lab.start(netns, node, CLI, ...args, ...more)
    const mark = name === 'run' ? 'framepump: ready' : 'switch: started'
    await storm(run, ['SIGUSR1'], () => (run.stdout + run.stderr).includes(mark))
    // One that came before the first line may be open for a moment, on which nobody can stay.
    let quiet = 0
    await until('nobody listens any more', () => {
      quiet = listening(run.child.pid!).length === 0 ? quiet + 1 : 0
      return quiet === 25
    })
    for (let round = 0; round < 100; round++) {
      run.child.kill('SIGUSR1')
      expect(listening(run.child.pid!)).toEqual([])
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    expect(run.isRunning).toBe(true)
    if (name === 'run') {
      await until('it is told', () => run.stderr.includes('SIGUSR1 ignored'))
      expect(run.stderr.match(/SIGUSR1 ignored/g)).toHaveLength(1)
    }
    expect(await run.stop()).toBe(name === 'run' ? 0 : 1)
  })

  test('SIGHUP and SIGUSR2 do not kill a daemon that starts', async () => {
    await using lab = new Lab()
    const netns = lab.netns()
    const control = lab.controlPath()
    const script = join(lab.directory, 'slow')
    const started = join(lab.directory, 'started')
    writeFileSync(script, `#!/bin/sh\ntouch ${started}\nsleep 1\n`)
    chmodSync(script, 0o755)
    const file = join(lab.directory, 'switch.yaml')
    const port = (id: string): string =>
      `  - { id: ${id}, type: tap, ifname: ${id}, netns: ${netns}, script: ${script}, downscript: no }\n`
    writeFileSync(file, `ports:\n${port('a')}`)
    const command = [CLI, 'run', '--io', IO, '--control', control, '--config', file]
    const run = lab.background(node, command)
    await storm(run, ['SIGHUP', 'SIGUSR2'], () => existsSync(started))
    // The file of now: asked for before it is ready, done after it.
    writeFileSync(file, `ports:\n${port('a')}${port('b').replace(script, 'no')}`)
    run.child.kill('SIGHUP')
    await until('b is there', () => run.stderr.includes('tap b: opened'))
    expect(run.stderr.indexOf('framepump: ready')).toBeLessThan(run.stderr.indexOf('tap b: opened'))
    expect(run.stderr.match(/SIGUSR2 ignored/g)).toHaveLength(1)
    run.child.kill('SIGUSR2')
    expect(await run.stop()).toBe(0)
    expect(run.stderr.match(/SIGUSR2 ignored/g)).toHaveLength(1)
    expect(existsSync(control)).toBe(false)
  })
})

test('who is connected to an inspector that an early signal opened is hung up on', async () => {
  await using lab = new Lab()
  const file = join(lab.directory, 'late.mjs')
  // The signal as Node would take it before our first line.
  writeFileSync(
    file,
    `import inspector from 'node:inspector'
     process.kill(process.pid, 'SIGUSR1')
     setTimeout(() => {}, 1e9)
     while (inspector.url() === undefined) await new Promise((resolve) => setTimeout(resolve, 5))
     process.stdin.once('data', async () => {
       const { refuseInspector } = await import(${JSON.stringify(`${ROOT}/build/cli/signals.js`)})
       await refuseInspector()
       console.log('refused', inspector.url())
     })
     console.log(inspector.url())`,
  )
  const run = lab.background(process.execPath, ['--inspect-port=0', file], {})
  await until('it listens', () => /ws:.*\n/.test(run.stdout))
  const url = new URL(run.stdout.trim())
  const client = connect(Number(url.port), '127.0.0.1')
  let isOver = false
  client.on('close', () => (isOver = true)).on('error', () => undefined)
  let answer = ''
  client.on('data', (data) => (answer += data.toString('latin1')))
  client.write(
    `GET ${url.pathname} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
      'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n',
  )
  await until('the inspector answers', () => answer.includes('101'))
  run.child.stdin!.write('x')
  await until('it has refused', () => run.stdout.includes('refused undefined'))
  await until('the client is hung up on', () => isOver)
  run.child.kill('SIGKILL')
})
