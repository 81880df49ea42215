/**
 * The end of a process: whoever is told to end does, whatever sleeps in the kernel; whatever thread
 * fails, the daemon says so, closes what is left and is gone within two seconds.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { FrontEnd } from '../support/front-end.ts'
import { Gate } from '../support/gate.ts'
import type { Daemon } from '../support/lab.ts'
import { CLI, IO, Lab, NODES, ROOT } from '../support/lab.ts'
import { Planted } from '../support/planted.ts'
import { sh, until } from '../support/processes.ts'

/** What the daemon may take from a failure to its end. */
const FAILURE_MS = 2000
/** It gives itself so little time that on a busy machine it may not have been run in it: not so again and again. */
const IN_TIME = { retry: 2 }

/** A program that uses the library: a switch with all kinds of threads, idle, then `end`. */
const program = (end: string): string => `
  import { parentPort } from 'node:worker_threads'
  import { createSwitch } from ${JSON.stringify(`${ROOT}/dist/index.js`)}
  const sw = createSwitch({ io: process.env.IO })
  await sw.addPort({ id: 'm', type: 'memory' })
  await sw.addPort({ id: 'v', type: 'virtio-net', driver: 'echo' })
  await sw.addPort({ id: 'u', type: 'vhost-user', path: process.env.SOCKET })
  await sw.startCapture({ to: { path: process.env.SOCKET + '.pcapng' } })
  for (let before = -1; sw.counters().sleeps !== before || before < 1;) {
    before = sw.counters().sleeps
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  ${end}`

/** Runs the program of that file in a thread, which is ended when it asks for it. */
const inWorker = (file: string): string => `
  import { Worker } from 'node:worker_threads'
  const worker = new Worker(${JSON.stringify(file)})
  worker.on('message', async () => {
    await worker.terminate()
    console.error('as told')
  })
  worker.on('error', (error) => console.error(error.message))
  worker.on('exit', (code) => (process.exitCode = code))`

interface Ending {
  readonly name: string
  readonly end: string
  readonly isInWorker?: boolean
  readonly code: number
  readonly says: string
}

const ENDINGS: readonly Ending[] = [
  { name: 'process.exit()', end: 'process.exit(7)', code: 7, says: '' },
  {
    name: 'an error',
    end: `setTimeout(() => { throw new Error('as told') })`,
    code: 1,
    says: 'as told',
  },
  {
    name: 'a rejection',
    end: `void Promise.reject(new Error('as told'))`,
    code: 1,
    says: 'as told',
  },
  {
    name: 'its exit listener throwing',
    end: `process.on('exit', () => { throw new Error('as told') }); process.exit(7)`,
    code: 7,
    says: 'as told',
  },
  { name: 'close()', end: 'await sw.close()', code: 0, says: '' },
  {
    name: 'process.exit() in a worker',
    end: 'process.exit(7)',
    isInWorker: true,
    code: 7,
    says: '',
  },
  {
    name: 'an error in a worker',
    end: `throw new Error('as told')`,
    isInWorker: true,
    code: 1,
    says: 'as told',
  },
  {
    name: 'terminate() from outside',
    end: 'parentPort.postMessage(1)',
    isInWorker: true,
    code: 1,
    says: 'as told',
  },
]

describe.each(NODES)('on %s', (node) => {
  test.each(ENDINGS)('a program with an idle switch ends by $name', async (ending) => {
    await using lab = new Lab()
    const socket = join(lab.directory, 'u.sock')
    const own = join(lab.directory, 'program.mjs')
    writeFileSync(own, program(ending.end))
    const outer = join(lab.directory, 'outer.mjs')
    writeFileSync(outer, inWorker(own))
    const file = ending.isInWorker === true ? outer : own
    const result = spawnSync(node, [file], {
      encoding: 'utf8',
      timeout: 45_000,
      killSignal: 'SIGKILL',
      env: { ...process.env, IO, SOCKET: socket },
    })
    expect(result).toMatchObject({ status: ending.code, signal: null })
    expect(result.stderr).toContain(ending.says)
    // Nobody can do anything for a thread that is terminated; the others leave no socket behind.
    if (!ending.name.startsWith('terminate')) expect(existsSync(socket)).toBe(false)
  })

  test.each(['engine', 'io'] as const)(
    'the failure of thread %s ends the daemon',
    IN_TIME,
    async (thread) => {
      await using lab = new Lab()
      const planted = new Planted()
      const { daemon, netns, paths, args } = await guestAndTap(lab, planted, node)
      const guest = FrontEnd.connect(paths.guest)
      await guest.start()
      await until('it is connected', async () => (await daemon.port('vm'))['state'] === 'connected')
      const started = Date.now()
      planted.fail(thread)
      daemon.execute('query-mac-table').catch(() => undefined)
      expect(await daemon.process.exited).toBe(1)
      expect(Date.now() - started).toBeLessThan(FAILURE_MS)
      const what = thread === 'engine' ? 'engine' : 'I/O thread'
      const code = thread === 'engine' ? 'ENGINE_FAILED' : 'IO_THREAD_FAILED'
      expect(daemon.process.stderr).toContain(`error="the ${what} failed: planted [${code}]`)
      expect(daemon.process.stderr).not.toMatch(/forced end|\n +at /)
      await guest.hungUp()
      guest.close()
      expect(existsSync(daemon.control)).toBe(false)
      expect(existsSync(paths.guest)).toBe(false)
      expect(readFileSync(paths.log, 'utf8')).toBe('down x0\n')
      expect(sh('ip', '-n', netns, '-o', 'link')).not.toContain('x0')
      // Whole, as far as it goes.
      expect(sh('capinfos', '-c', paths.capture)).toMatch(/Number of packets: /)
      planted.clear()
      const again = await lab.daemonOn(node, planted.env, daemon.control, ...args)
      expect(await again.process.stop()).toBe(0)
    },
  )

  test(
    'an engine that fails while the daemon starts: it says so and leaves nothing',
    IN_TIME,
    async () => {
      await using lab = new Lab()
      const planted = new Planted()
      planted.fail('engine')
      const control = join(lab.directory, 'made/for/it/c.sock')
      const command = [CLI, 'run', '--io', IO, '--control', control, '--port', 'virtio-net,id=v']
      const started = Date.now()
      const daemon = lab.background(node, command, planted.env)
      expect(await daemon.exited).toBe(1)
      expect(Date.now() - started).toBeLessThan(FAILURE_MS + 2000)
      expect(daemon.stderr).toContain('framepump: port "v": the engine failed: planted')
      expect(existsSync(join(lab.directory, 'made'))).toBe(false)
    },
  )

  test(
    'SIGTERM ends a daemon whose engine never answers, a second one at once',
    IN_TIME,
    async () => {
      await using lab = new Lab()
      for (const isRepeated of [false, true]) {
        const planted = new Planted()
        const { daemon, paths } = await guestAndTap(lab, planted, node)
        planted.hang('engine')
        daemon.execute('query-mac-table').catch(() => undefined)
        const started = Date.now()
        daemon.process.child.kill('SIGTERM')
        await until('it ends', () => daemon.process.stderr.includes('stopping'))
        // The same order, told twice.
        daemon.process.child.kill('SIGTERM')
        await new Promise((resolve) => setTimeout(resolve, 400))
        expect(daemon.process.isRunning).toBe(true)
        if (isRepeated) daemon.process.child.kill('SIGTERM')
        expect(await daemon.process.exited).toBe(1)
        const tookMs = Date.now() - started
        expect(daemon.process.stderr).toMatch(
          isRepeated ? /forced end: a second SIGTERM/ : /forced end: closing took more than 5 s/,
        )
        // Before the others' five seconds; and those take no longer than a busy machine makes them.
        if (isRepeated) expect(tookMs).toBeLessThan(5000)
        else expect(tookMs).toBeLessThan(15_000)
        expect(existsSync(daemon.control)).toBe(false)
        expect(existsSync(paths.guest)).toBe(false)
      }
    },
  )
})

test('the failure of a driver or of a capture is theirs alone', async () => {
  await using lab = new Lab()
  const planted = new Planted()
  const { daemon, paths, netns } = await guestAndTap(lab, planted, process.execPath)
  const ended: Record<string, unknown>[] = []
  daemon.client.events.on('event', (name, data) => name === 'CAPTURE_ENDED' && ended.push(data))
  planted.fail('driver')
  planted.fail('writer')
  await daemon.execute('netdev_add', { type: 'virtio-net', id: 'v2', driver: 'generate' })
  // Its requests for an address go to everybody, and wake the driver that sleeps.
  lab.address(netns, '10.0.0.1')
  lab.background('ip', ['netns', 'exec', netns, 'ping', '-c', '10', '10.0.0.9'])
  await until('the driver has failed', async () => (await daemon.port('v'))['state'] === 'failed')
  expect((await daemon.port('v'))['error']).toContain('the driver failed: planted')
  await until('the capture has ended', () => ended.length === 1)
  expect(ended[0]['error']).toBe('planted')
  expect(existsSync(paths.capture)).toBe(true)
  planted.clear()
  for (const id of ['v', 'v2']) await daemon.execute('netdev_del', { id })
  await daemon.execute('netdev_add', { type: 'virtio-net', id: 'v', driver: 'sink' })
  expect(await daemon.process.stop()).toBe(0)
})

test('SIGTERM while it starts: no further port is opened, exit 0', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  const gate = new Gate(lab.directory)
  const control = lab.controlPath()
  const ports = ['one', 'two'].flatMap((name) => [
    '--port',
    `tap,id=${name},ifname=${name},netns=${netns},script=${gate.script},downscript=no`,
  ])
  const daemon = lab.background(process.execPath, [CLI, 'run', '--control', control, ...ports])
  await gate.reached()
  daemon.child.kill('SIGTERM')
  gate.open()
  expect(await daemon.exited).toBe(0)
  expect(daemon.stderr).not.toContain('tap two')
  expect(daemon.stderr).not.toContain('config: stopped')
  expect(daemon.stderr).not.toContain('ready')
  expect(existsSync(control)).toBe(false)
  expect(sh('ip', '-n', netns, '-o', 'link')).not.toContain('one')
})

function scriptIn(lab: Lab, name: string, body: string): string {
  const path = join(lab.directory, name)
  writeFileSync(path, `#!/bin/sh\n${body}\n`)
  chmodSync(path, 0o755)
  return path
}

interface Setting {
  readonly daemon: Daemon
  readonly netns: string
  readonly paths: { readonly guest: string; readonly log: string; readonly capture: string }
  readonly args: string[]
}

/** A TAP with a down-script, a place for a guest, a driver and a capture. */
async function guestAndTap(lab: Lab, planted: Planted, node: string): Promise<Setting> {
  const netns = lab.netns()
  const control = lab.controlPath()
  const paths = { guest: `${control}.vm`, log: `${control}.log`, capture: `${control}.pcapng` }
  const down = scriptIn(lab, 'down', `echo "down $1" >>${paths.log}`)
  const args = [
    ['--port', `tap,id=a,ifname=x0,netns=${netns},up=on,script=no,downscript=${down}`],
    ['--port', `vhost-user,id=vm,path=${paths.guest}`],
    ['--port', 'virtio-net,id=v,driver=echo'],
  ].flat()
  const daemon = await lab.daemonOn(node, planted.env, control, ...args)
  await daemon.execute('capture-start', { path: paths.capture })
  return { daemon, netns, paths, args }
}
