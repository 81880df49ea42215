/**
 * Sessions that are to end, and a process without descriptors: a broken front-end is gone at once,
 * whoever waits takes no CPU, and the operator always gets through.
 */
import { readdirSync, readFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { connect } from 'node:net'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { ControlClient } from '../../../src/control/client.ts'
import { shim } from '../../../src/native/shim.ts'
import { FrontEnd, u32s } from '../../support/front-end.ts'
import type { Daemon } from '../../support/lab.ts'
import { Lab } from '../../support/lab.ts'
import { sh, until } from '../../support/processes.ts'

const GET_FEATURES = 1
const SET_MEM_TABLE = 5
const SET_VRING_NUM = 8
const EAGAIN = 11
const POLLHUP = 16

const pidOf = (daemon: Daemon): number => daemon.process.child.pid!

function openFds(daemon: Daemon): number[] {
  return readdirSync(`/proc/${pidOf(daemon)}/fd`).map(Number)
}

/** CPU time in milliseconds (USER_HZ is 100). */
function cpuMs(daemon: Daemon): number {
  const stat = readFileSync(`/proc/${pidOf(daemon)}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return 10 * (Number(fields[11]) + Number(fields[12]))
}

function limitFds(daemon: Daemon, limit: number): void {
  sh('prlimit', '--pid', String(pidOf(daemon)), `--nofile=${limit}:20000`)
}

const hasHungUp = (guest: FrontEnd): boolean => (shim.poll(guest.fd, 0, 0) & POLLHUP) !== 0

/** Sends a message as soon as the socket takes it. */
async function press(
  guest: FrontEnd,
  request: number,
  payload?: Uint8Array,
  fds: number[] = [],
): Promise<void> {
  await until('the socket takes the message', () => {
    try {
      guest.send(request, payload, fds)
      return true
    } catch (error) {
      if ((error as Error).message !== `sendmsg: ${-EAGAIN}`) throw error
      return false
    }
  })
}

test('a front-end that breaks the protocol with its answers unread is gone at once', async () => {
  await using lab = new Lab()
  const path = join(lab.directory, 'g.sock')
  const daemon = await lab.daemon('--port', `vhost-user,id=g,path=${path}`)
  const told = (): number => daemon.process.stderr.split('hung up on').length - 1
  /** Whether the port was free while its front-end still had the second that it is given to read. */
  const isFreeBefore = async (tries: number): Promise<boolean> => {
    const guest = FrontEnd.connect(path)
    await guest.start()
    await until('the port is connected', async () => (await daemon.port('g')).state === 'connected')
    // More than the socket holds: the rest waits in the daemon.
    for (let n = 0; n < 1000; n++) await press(guest, GET_FEATURES)
    const waiting = openFds(daemon).length
    await press(guest, SET_VRING_NUM, u32s(0, 0))
    // What follows is void: it would make a port without memory.
    for (let n = 0; n < 10; n++) await press(guest, SET_MEM_TABLE)
    await until(
      'the port is disconnected',
      async () => (await daemon.port('g')).state === 'disconnected',
    )
    const isBefore = !hasHungUp(guest)
    await until('the connection is dropped', () => hasHungUp(guest))
    await until('nothing of it is left', () => openFds(daemon).length < waiting)
    await until('it is told', () => told() >= tries)
    expect(told()).toBe(tries)
    guest.close()
    return isBefore
  }
  // On a machine that is busy we may look too late.
  for (let tries = 1; !(await isFreeBefore(tries)); tries++) expect(tries).toBeLessThan(5)
  const next = FrontEnd.connect(path)
  await next.start()
  await until('the port is connected', async () => (await daemon.port('g')).state === 'connected')
  next.close()
})

test('of one port three front-ends are served at once, the next ones wait', async () => {
  await using lab = new Lab()
  const path = join(lab.directory, 'g.sock')
  const daemon = await lab.daemon('--port', `vhost-user,id=g,path=${path}`)
  const guests = Array.from({ length: 8 }, () => FrontEnd.connect(path))
  const before = openFds(daemon).length
  for (const guest of guests.slice(0, 3)) await guest.negotiate()
  for (const guest of guests.slice(3)) guest.send(GET_FEATURES)
  await daemon.execute('query-status')
  expect(openFds(daemon).length).toBeLessThanOrEqual(before + 3)
  for (const [at, guest] of guests.entries()) {
    if (at >= 3) expect((await guest.reply()).request).toBe(GET_FEATURES)
    guest.close()
  }
})

test('eighty idle connections do not lock the operator out', async () => {
  await using lab = new Lab()
  const daemon = await lab.daemon()
  const idle: Socket[] = []
  for (let n = 0; n < 80; n++) {
    idle.push(
      connect(daemon.control)
        .on('error', () => undefined)
        .resume(),
    )
  }
  for (let n = 0; n < 10; n++) {
    const client = await ControlClient.connect(daemon.control)
    expect(await client.execute('query-status')).toMatchObject({ running: true })
    client.close()
  }
  // Whoever has said something stays.
  expect(await daemon.execute('query-status')).toMatchObject({ running: true })
  await until(
    'the others are hung up on',
    () => idle.filter(({ closed }) => closed).length >= 80 - 32,
  )
  for (const socket of idle) socket.destroy()
})

test('without a descriptor peers wait, descriptors that are lost are told, and the operator gets through', async () => {
  await using lab = new Lab()
  const path = join(lab.directory, 'g.sock')
  const daemon = await lab.daemon('--port', `vhost-user,id=g,path=${path}`)
  const guest = FrontEnd.connect(path)
  await guest.negotiate()
  // Everything that is left is taken, holes included.
  const highest = Math.max(...openFds(daemon))
  limitFds(daemon, highest + 4)
  const hoarder = await daemon.connect()
  const given = shim.eventfd(0, 0)
  await expect(
    (async () => {
      for (let n = 0; n < highest + 10; n++) {
        await hoarder.execute('getfd', { fdname: `f${n}` }, given)
      }
    })(),
  ).rejects.toMatchObject({
    message: expect.stringContaining('descriptors were lost') as string,
    code: 'OUT_OF_RESOURCES',
  })
  // A memory table whose descriptor is lost is no memory table.
  guest.send(SET_MEM_TABLE, guest.memoryTable(), [guest.memfd])
  await guest.hungUp()
  await until('it is told', () => daemon.process.stderr.includes('descriptors were lost'))
  // That freed one; it is taken as well.
  await expect(
    (async () => {
      for (let n = 0; n < 10; n++) await hoarder.execute('getfd', { fdname: `g${n}` }, given)
    })(),
  ).rejects.toThrow('descriptors were lost')
  const waiting = FrontEnd.connect(path)
  waiting.send(GET_FEATURES)
  for (let n = 0; n < 5; n++) {
    const client = await ControlClient.connect(daemon.control)
    expect(await client.execute('query-status')).toMatchObject({ running: true })
    client.close()
  }
  await until('it waits without taking the processor', async () => {
    const [cpuBefore, msBefore] = [cpuMs(daemon), performance.now()]
    await new Promise((resolve) => setTimeout(resolve, 1000))
    return (cpuMs(daemon) - cpuBefore) / (performance.now() - msBefore) < 0.3
  })
  await expect(
    daemon.execute('netdev_add', { type: 'vhost-user', id: 'h', path: `${path}2` }),
  ).rejects.toThrow('Too many open files')
  limitFds(daemon, 20_000)
  expect((await waiting.reply()).request).toBe(GET_FEATURES)
  for (const each of [guest, waiting]) each.close()
  hoarder.close()
  shim.close(given)
})

test('a front-end with many queues has its share of descriptors, and takes none of the others', async () => {
  await using lab = new Lab()
  const pathOf = (id: string): string => join(lab.directory, `${id}.sock`)
  const daemon = await lab.daemon()
  limitFds(daemon, 2000)
  const add = (id: string, queues: number): Promise<unknown> =>
    daemon.execute('netdev_add', { type: 'vhost-user', id, path: pathOf(id), queues })
  await add('g', 128)
  await expect(add('h', 128)).rejects.toThrow(/port "h" may need 778 descriptors, \d+ are left/)
  await add('w', 1)
  const guest = FrontEnd.connect(pathOf('g'))
  await guest.negotiate()
  const before = openFds(daemon).length
  const eventFd = shim.eventfd(0, 0)
  for (let queue = 0; queue < 256; queue++) {
    for (const request of [12, 13, 14]) {
      const payload = new Uint8Array(BigUint64Array.of(BigInt(queue)).buffer)
      await press(guest, request, payload, [eventFd])
    }
  }
  await guest.barrier()
  // Each of them once more takes the place of the one before.
  for (let queue = 0; queue < 256; queue++) {
    const payload = new Uint8Array(BigUint64Array.of(BigInt(queue)).buffer)
    await press(guest, 12, payload, [eventFd])
  }
  await guest.barrier()
  await until('it has three of each queue', () => openFds(daemon).length - before === 768)
  // Another one like that would leave nothing for the others.
  const second = FrontEnd.connect(pathOf('g'))
  await second.hungUp()
  await until('it is told', () => daemon.process.stderr.includes('another front-end may need 777'))
  const good = FrontEnd.connect(pathOf('w'))
  await good.start()
  await until('the guest is there', async () => (await daemon.port('w')).state === 'connected')
  const operator = await ControlClient.connect(daemon.control)
  await operator.execute('netdev_del', { id: 'g' })
  await add('h', 128)
  operator.close()
  for (const each of [guest, second, good]) each.close()
  shim.close(eventFd)
})
