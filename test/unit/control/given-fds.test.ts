/** What a client may hand over by name, and whose it is then. */
import { afterEach, expect, test } from 'vitest'
import {
  FDNAME_LENGTH_MAX,
  GIVEN_FDS_MAX,
  GIVEN_FDS_TOTAL_MAX,
  GivenFds,
} from '../../../src/control/given-fds.ts'
import { checkFdFree, claimFd } from '../../../src/native/owned-fds.ts'
import { memfd, openDescriptors } from '../native/windows.ts'

const clients: GivenFds[] = []
afterEach(() => {
  for (const client of clients.splice(0)) client.close()
})

function client(): GivenFds {
  const made = new GivenFds()
  clients.push(made)
  return made
}

/** Numbers that no descriptor has: nothing is done with them here but to close them. */
let next = 1_000_000
const add = (to: GivenFds, count: number): void => {
  for (let n = 0; n < count; n++) to.add(`f${next}`, next++)
}

test('each client keeps so many, and all together; what is taken counts no more', () => {
  const first = client()
  add(first, GIVEN_FDS_MAX)
  expect(() => add(first, 1)).toThrow('a client keeps at most 256 descriptors')
  for (let n = 1; n < GIVEN_FDS_TOTAL_MAX / GIVEN_FDS_MAX; n++) add(client(), GIVEN_FDS_MAX)
  const last = client()
  expect(() => add(last, 1)).toThrow('all clients together keep at most 1024 descriptors')
  const [name, fd] = [...first.byName][0]
  expect(first.take(name)).toBe(fd)
  expect(first.take(name)).toBeUndefined()
  add(last, 1)
  expect(() => add(last, 1)).toThrow('all clients together')
  for (const each of clients.splice(0)) each.close()
  add(client(), GIVEN_FDS_MAX)
})

test('a name has a length, and does not begin with a digit', () => {
  const given = client()
  expect(() => given.add('7', next)).toThrow('expects a name not starting with a digit')
  expect(() => given.add('x'.repeat(FDNAME_LENGTH_MAX + 1), next)).toThrow('at most 255 characters')
  given.add('x'.repeat(FDNAME_LENGTH_MAX), next++)
})

test('the end of a client closes what it has left', () => {
  const given = new GivenFds()
  const fd = memfd(4096)
  const before = openDescriptors()
  given.add('m', fd)
  given.close()
  expect(openDescriptors()).toBe(before - 1)
})

test('a descriptor that a client offers is only had by its name, one of a port not at all', () => {
  const given = client()
  const fd = next++
  checkFdFree(fd, false)
  given.add('t', fd)
  expect(() => checkFdFree(fd, false)).toThrow(
    `file descriptor ${fd} is in use: a client has it as "t"`,
  )
  checkFdFree(fd, true)
  const port = claimFd(fd, 'port "p"')
  for (const isNamed of [false, true]) {
    expect(() => checkFdFree(fd, isNamed)).toThrow(`file descriptor ${fd} is in use: port "p"`)
  }
  // The port is not there after all.
  port.giveBack()
  checkFdFree(fd, true)
  expect(() => checkFdFree(fd, false)).toThrow('a client has it')
  // It is there: the client has it no more, and at its end nobody.
  const again = claimFd(fd, 'port "p"')
  expect(given.take('t')).toBe(fd)
  expect(() => checkFdFree(fd, true)).toThrow('port "p"')
  again.end()
  checkFdFree(fd, false)
})
