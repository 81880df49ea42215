/** The client of the control socket, beside daemons that are none. */
import { mkdtempSync, rmSync } from 'node:fs'
import type { Server, Socket } from 'node:net'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { ControlClient } from '../../../src/control/client.ts'
import { shim } from '../../../src/native/shim.ts'
import { until } from '../../support/processes.ts'

const SOCK_STREAM = 1
const GREETING = '{"QMP": {"version": {}, "capabilities": []}}\r\n'

let directory: string
let server: Server | undefined

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'framepump-client-'))
})

afterEach(() => {
  server?.close()
  server = undefined
  rmSync(directory, { recursive: true })
})

/** Greets, negotiates, then answers each command with a text. */
async function daemon(answer: (id: number) => string): Promise<string> {
  const path = join(directory, 'c.sock')
  server = createServer((socket: Socket) => {
    socket.write(GREETING)
    socket.on('data', (data) => {
      const { execute, id } = JSON.parse(data.toString()) as { execute: string; id: number }
      socket.write(execute === 'qmp_capabilities' ? `{"return": {}, "id": ${id}}\r\n` : answer(id))
    })
  })
  await new Promise<void>((resolve) => server!.listen(path, resolve))
  return path
}

const failing = (code: string): object => ({ code })

test('nobody there', async () => {
  const path = join(directory, 'none.sock')
  await expect(ControlClient.connect(path)).rejects.toMatchObject(failing('DAEMON_UNREACHABLE'))
})

test('an error without a code', async () => {
  const path = await daemon(
    (id) => `{"error": {"class": "GenericError", "desc": "no"}, "id": ${id}}\r\n`,
  )
  const client = await ControlClient.connect(path)
  await expect(client.execute('stop')).rejects.toMatchObject({
    message: 'no',
    code: 'CONTROL_ERROR',
  })
  client.close()
})

test('an answer that is no JSON', async () => {
  const client = await ControlClient.connect(await daemon(() => 'hello\r\n'))
  await expect(client.execute('stop')).rejects.toMatchObject(failing('CONTROL_ERROR'))
  await expect(client.execute('stop')).rejects.toMatchObject(failing('DAEMON_UNREACHABLE'))
})

test('one that hangs up', async () => {
  const path = await daemon(() => '')
  const client = await ControlClient.connect(path)
  const waiting = client.execute('stop')
  client.close()
  await expect(waiting).rejects.toMatchObject(failing('DAEMON_UNREACHABLE'))
})

test('one that says nothing, reached when the time was over', async () => {
  const path = join(directory, 'c.sock')
  server = createServer((socket) => void socket.on('error', () => undefined))
  await new Promise<void>((resolve) => server!.listen(path, resolve))
  await expect(ControlClient.connect(path, AbortSignal.abort())).rejects.toMatchObject({
    code: 'DAEMON_UNREACHABLE',
    message: expect.stringContaining('it does not answer') as string,
  })
})

test('a queue of connections that is full is waited for', async () => {
  const path = join(directory, 'c.sock')
  // Nobody accepts: the second one finds no place.
  const listener = shim.socketUnix(SOCK_STREAM)
  expect(shim.bindUnix(listener, path)).toBe(0)
  expect(shim.listen(listener, 0)).toBe(0)
  const filling = shim.socketUnix(SOCK_STREAM)
  expect(shim.connectUnix(filling, path)).toBe(0)
  const connecting = ControlClient.connect(path)
  const accepted = shim.accept(listener)
  expect(accepted).toBeGreaterThan(0)
  let late = -1
  await until('the next one is there', () => (late = shim.accept(listener)) > 0)
  // It waits for a greeting.
  for (const fd of [listener, filling, accepted, late]) shim.close(fd)
  await expect(connecting).rejects.toMatchObject(failing('DAEMON_UNREACHABLE'))
})
