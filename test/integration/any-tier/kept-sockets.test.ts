/**
 * Listening sockets in the service manager's store: whoever connects while there is no daemon waits for the one
 * that comes next.
 */
import { existsSync, lstatSync, renameSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { passOn } from '../../support/hand-over.ts'
import { shim } from '../../../src/native/shim.ts'
import { numberOf } from '../../../src/sockets/socket-file.ts'
import { FrontEnd } from '../../support/front-end.ts'
import { Lab } from '../../support/lab.ts'
import { until } from '../../support/processes.ts'
import { Supervisor } from '../../support/supervisor.ts'
import { cli, execute, isAlive } from '../../support/upgrades.ts'

const nameOf = (path: string): string => `socket-${numberOf(lstatSync(path))}`
const namesOf = (...paths: string[]): string[] => paths.map(nameOf).toSorted()
const guest = (id: string, path: string): string => `vhost-user,id=${id},path=${path}`

const isRunning = (control: string): Promise<{ running: boolean }> =>
  execute(control, 'query-status')

/** That it answers, as a daemon that was started by its name does. */
async function expectServed(path: string): Promise<void> {
  const frontEnd = FrontEnd.connect(path)
  try {
    await frontEnd.start()
  } finally {
    frontEnd.close()
  }
}

/** Kills it; a client that comes meanwhile is answered by the next one. Resolves with a front-end that came as well. */
async function killed(supervisor: Supervisor, path: string): Promise<FrontEnd> {
  let answer: Promise<unknown> | undefined
  let waiting: FrontEnd | undefined
  await supervisor.kill(() => {
    answer = isRunning(supervisor.control)
    waiting = FrontEnd.connect(path)
  })
  expect(await answer).toMatchObject({ running: true })
  return waiting!
}

test('clients and front-ends that come while there is no daemon are served by the next one', async () => {
  await using lab = new Lab()
  const path = join(lab.directory, 'made/guest.sock')
  await using supervisor = await Supervisor.start(lab, true, '--port', guest('g', path))
  const { control } = supervisor
  const before = namesOf(control, path)
  expect(supervisor.sockets).toEqual(before)
  for (let round = 0; round < 3; round++) {
    const waiting = await killed(supervisor, path)
    try {
      await waiting.start()
      await until('it is connected', async () => {
        const [{ state }] = await execute<{ state: string }[]>(control, 'query-ports')
        return state === 'connected'
      })
    } finally {
      waiting.close()
    }
  }
  expect(supervisor.log.match(/vhost-user g: goes on with the kept socket path=/g)).toHaveLength(3)
  expect(supervisor.log.match(/control: goes on with the kept socket path=/g)).toHaveLength(3)
  expect([supervisor.sockets, namesOf(control, path)]).toEqual([before, before])
  await execute(control, 'netdev_del', { id: 'g' })
  await until('it is removed', () => supervisor.sockets.length === 1)
  expect(existsSync(path)).toBe(false)
  expect(await supervisor.stop()).toBe(0)
  expect([supervisor.sockets, existsSync(control)]).toEqual([[], false])
})

test('a file that leads elsewhere, or is gone, is made anew, and what was kept is closed and named', async () => {
  await using lab = new Lab()
  const paths = ['gone', 'other', 'moved'].map((name) => join(lab.directory, `${name}.sock`))
  const [gone, other, moved] = paths
  const args = paths.flatMap((path, k) => ['--port', guest(`g${k}`, path)])
  await using supervisor = await Supervisor.start(lab, true, ...args)
  const [nameOfGone, nameOfOther, nameOfMoved] = paths.map(nameOf)
  await supervisor.kill(async () => {
    unlinkSync(gone)
    renameSync(moved, `${moved}.away`)
    unlinkSync(other)
    // A stale one: nobody listens any more.
    const fd = shim.socketUnix(1)
    shim.bindUnix(fd, other)
    shim.close(fd)
  })
  for (const name of [nameOfGone, nameOfOther, nameOfMoved]) {
    expect(supervisor.log).toContain(`no port has taken name="${name}" of="socket:`)
  }
  for (const path of paths) await expectServed(path)
  const want = namesOf(supervisor.control, ...paths)
  await until('the store has the new ones', () => want.join() === supervisor.sockets.join())
})

test('what the store has under the name of a file must listen, and may be there twice', async () => {
  await using lab = new Lab()
  const paths = [0, 1].map((k) => join(lab.directory, `g${k}.sock`))
  const args = paths.flatMap((path, k) => ['--port', guest(`g${k}`, path)])
  await using supervisor = await Supervisor.start(lab, true, ...args)
  const [first, second] = paths.map(nameOf)
  await supervisor.kill(() => {
    const [fd] = supervisor.store.get(first)!
    supervisor.store.set(first, [shim.open('/dev/null', 0)])
    shim.close(fd)
    supervisor.put(second, passOn(supervisor.store.get(second)![0]))
  })
  expect(supervisor.log).toContain('is not used because="it is no listening Unix socket"')
  expect(supervisor.log).toContain('vhost-user g1: goes on with the kept socket')
  for (const path of paths) await expectServed(path)
  const want = namesOf(supervisor.control, ...paths)
  await until('the store has the new ones', () => want.join() === supervisor.sockets.join())
})

test('a port of another name at the path takes it; that of a port that is gone is closed', async () => {
  await using lab = new Lab()
  const [one, two] = ['one', 'two'].map((name) => join(lab.directory, `${name}.sock`))
  const config = join(lab.directory, 'switch.yaml')
  const write = (...ports: [string, string][]): void =>
    writeFileSync(
      config,
      `ports:\n${ports.map(([id, path]) => `  - { id: ${id}, type: vhost-user, path: ${path} }\n`).join('')}`,
    )
  write(['a', one], ['b', two])
  await using supervisor = await Supervisor.start(lab, true, '--config', config)
  const [nameOfOne, nameOfTwo] = [one, two].map(nameOf)
  let waiting: FrontEnd | undefined
  await supervisor.kill(() => {
    write(['b', one])
    waiting = FrontEnd.connect(one)
  })
  await waiting!.start()
  waiting!.close()
  expect(supervisor.log).toContain(`vhost-user b: goes on with the kept socket path=${one}`)
  expect(supervisor.log).toContain(`no port has taken name="${nameOfTwo}"`)
  await until('it is removed', () => !supervisor.sockets.includes(nameOfTwo))
  write(['b', one], ['c', two])
  await execute(supervisor.control, 'config-reload')
  await until('another one is stored', () => supervisor.sockets.length === 3)
  write(['c', two])
  await execute(supervisor.control, 'config-reload')
  await until('the port’s is removed', () => !supervisor.sockets.includes(nameOfOne))
  expect(supervisor.sockets).toEqual(namesOf(supervisor.control, two))
})

test('after upgrades the sockets that are stored are the successor’s', async () => {
  await using lab = new Lab()
  const path = join(lab.directory, 'guest.sock')
  const args = ['--privileges', 'off', '--port', guest('g', path)]
  await using supervisor = await Supervisor.start(lab, true, ...args)
  const { control } = supervisor
  for (let round = 0; round < 2; round++) {
    const before = supervisor.pid
    await execute(control, 'migrate-set-parameters', { 'downtime-limit': 60_000 })
    expect((await cli('upgrade', '--control', control)).stderr).toBe('')
    await until('another one is the service', () => supervisor.pid !== before && !isAlive(before))
    const want = namesOf(control, path)
    await until('it has stored them', () => want.join() === supervisor.sockets.join())
  }
  const kept = supervisor.sockets
  const waiting = await killed(supervisor, path)
  await waiting.start()
  waiting.close()
  expect([supervisor.sockets, namesOf(control, path)]).toEqual([kept, kept])
  expect(await supervisor.stop()).toBe(0)
  expect([supervisor.sockets, existsSync(path), existsSync(control)]).toEqual([[], false, false])
})
