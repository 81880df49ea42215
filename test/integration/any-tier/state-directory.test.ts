/** The state directory of a real daemon: full, read-only, damaged, somebody else's. */
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { ControlClient } from '../../../src/control/client.ts'
import { FrontEnd } from '../../support/front-end.ts'
import { CLI, IO, Lab } from '../../support/lab.ts'
import type { Background } from '../../support/processes.ts'
import { sh, until } from '../../support/processes.ts'

const F_VERSION_1 = 1n << 32n
const F_PROTOCOL = 1n << 30n
const FEATURES = F_VERSION_1 | F_PROTOCOL

interface Running {
  readonly process: Background
  readonly state: string
  readonly socket: string
  /** Runs a program where the daemon sees its mounts. */
  readonly inside: (...command: string[]) => string
}

/** A daemon in a mount namespace of its own, after `mount` has been run there; ready or ended. */
async function start(lab: Lab, mount: string): Promise<Running> {
  const state = join(lab.directory, 'state')
  const socket = join(lab.directory, 'guest.sock')
  const file = join(lab.directory, 'switch.yaml')
  mkdirSync(state, { recursive: true, mode: 0o700 })
  writeFileSync(
    file,
    `state-dir: ${state}\nports:\n  - { id: g, type: vhost-user, path: ${socket} }\n  - { id: v, type: virtio-net }\n`,
  )
  const control = join(lab.directory, 'control.sock')
  const script = `cd / && ${mount.replaceAll('STATE', state)} && exec "$@"`
  const command = [process.execPath, CLI, 'run', '--io', IO, '--control', control, '--config', file]
  const daemon = lab.background('unshare', ['-m', 'sh', '-c', script, 'sh', ...command])
  await until('it is ready', () => daemon.stderr.includes('ready') || !daemon.isRunning)
  const inside = (...words: string[]): string =>
    sh('nsenter', '-t', String(daemon.child.pid), '-m', ...words)
  return { process: daemon, state, socket, inside }
}

/** A front-end that has acknowledged features, and was answered after that. */
async function negotiate(socket: string): Promise<FrontEnd> {
  const guest = FrontEnd.connect(socket)
  await guest.negotiate(FEATURES)
  await guest.barrier()
  return guest
}

test('a directory that fills up: the guest is served, told once, and stored when there is room', async () => {
  await using lab = new Lab()
  const { process, state, socket, inside } = await start(
    lab,
    'mount -t tmpfs -o size=16k,mode=700 tmpfs STATE',
  )
  expect(process.stderr).toContain('framepump: ready')
  inside('sh', '-c', `cat /dev/zero > ${state}/ballast 2>/dev/null || true`)
  const guest = await negotiate(socket)
  await until('it is told', () => process.stderr.includes('cannot be stored: No space left'))
  guest.close()
  const again = await negotiate(socket)
  expect(process.stderr.match(/cannot be stored/g)).toHaveLength(1)
  inside('rm', `${state}/ballast`)
  await until('it is stored', () => process.stderr.includes('is stored now'), 40_000)
  expect(inside('ls', state)).toBe('vhost-user-g.json\n')
  expect(JSON.parse(inside('cat', `${state}/vhost-user-g.json`))).toMatchObject({ queuePairs: 1 })
  again.close()
  expect(await process.stop()).toBe(0)
  expect(process.stderr.match(/is stored now/g)).toHaveLength(1)
})

test('a directory that becomes read-only: the same, with its reason', async () => {
  await using lab = new Lab()
  const { process, state, socket, inside } = await start(lab, 'mount --bind STATE STATE')
  expect(process.stderr).toContain('framepump: ready')
  inside('mount', '-o', 'remount,bind,ro', state)
  const guest = await negotiate(socket)
  await until('it is told', () => process.stderr.includes('cannot be stored: Read-only'))
  inside('mount', '-o', 'remount,bind,rw', state)
  await until('it is stored', () => process.stderr.includes('is stored now'), 40_000)
  expect(readFileSync(join(state, 'vhost-user-g.json'), 'utf8')).toContain('queuePairs')
  guest.close()
})

test.each([
  [
    'full',
    'mount -t tmpfs -o size=4k,mode=700 tmpfs STATE && (cat /dev/zero > STATE/x 2>/dev/null || true)',
    'No space left on device',
  ],
  [
    'read-only',
    'mount --bind -o ro STATE STATE && mount -o remount,bind,ro STATE',
    'Read-only file system',
  ],
  ['writable by others', 'chmod 777 STATE', 'others can write to it'],
  ['another user’s', 'chown 12345 STATE', 'it belongs to user 12345'],
])('a directory that is %s at the start is an error then', async (_, mount, reason) => {
  await using lab = new Lab()
  const { process, state } = await start(lab, mount)
  expect(await process.exited).toBe(1)
  expect(process.stderr).toContain(`state-dir ${state} cannot be used: ${reason}`)
  expect(process.stderr).toContain('or name another')
  chmodSync(state, 0o700)
})

test('damaged state, or of more queues than are configured, fails its port only', async () => {
  for (const [text, reason] of [
    ['{"features":"0x1', 'vhost-user-g.json cannot be used'],
    ['{"features":"0x1","queuePairs":8,"slots":509}', 'give queues=8 or more'],
  ]) {
    await using lab = new Lab()
    const state = join(lab.directory, 'state')
    mkdirSync(state, { mode: 0o700 })
    writeFileSync(join(state, 'vhost-user-g.json'), text, { mode: 0o600 })
    const { process } = await start(lab, 'true')
    expect(process.stderr).toContain('framepump: ready')
    const client = await ControlClient.connect(join(lab.directory, 'control.sock'))
    const ports = (await client.execute('query-ports')) as {
      id: string
      state: string
      error?: string
    }[]
    expect(ports.map((port) => [port.id, port.state])).toEqual([
      ['g', 'failed'],
      ['v', 'disconnected'],
    ])
    expect(ports[0].error).toContain(reason)
    // As the text says: the file goes, the port is made anew.
    sh('rm', join(state, 'vhost-user-g.json'))
    await client.execute('netdev_del', { id: 'g' })
    const path = join(lab.directory, 'guest.sock')
    await client.execute('netdev_add', { type: 'vhost-user', id: 'g', path })
    const guest = await negotiate(path)
    guest.close()
    client.close()
  }
})
