/** Errors of the engine, as the control plane has them. */
import { expect, test } from 'vitest'
import { errorFields, errorFrom } from '../../../src/engine/messages.ts'
import { ConfigError, FramepumpError, StateError, SysError } from '../../../src/errors.ts'

function cross(error: unknown): FramepumpError | string {
  const fields = structuredClone(errorFields(error))
  return fields.code === undefined ? fields.message : errorFrom(fields.code, fields)
}

test('what the system refused keeps its call, errno, names and hint', () => {
  const refused = new SysError('OUT_OF_MEMORY', 'cannot map', {
    syscall: 'mmap',
    errno: 12,
    ifname: 'tap0',
    path: '/dev/net/tun',
    hint: 'give it more',
  })
  refused.port = 'a'
  const error = cross(refused)
  expect(error).toBeInstanceOf(SysError)
  expect(error).toMatchObject({
    code: 'OUT_OF_MEMORY',
    message: 'cannot map',
    syscall: 'mmap',
    errno: 12,
    ifname: 'tap0',
    path: '/dev/net/tun',
    hint: 'give it more',
    port: 'a',
  })
})

test('others keep their code and hint', () => {
  for (const error of [new StateError('X', 'text', { hint: 'h' }), new ConfigError('X', 'text')]) {
    expect(cross(error)).toBeInstanceOf(FramepumpError)
    expect(cross(error)).toMatchObject({ code: 'X', message: 'text', hint: error.hint })
    expect(cross(error)).not.toBeInstanceOf(SysError)
  }
})

test('a mistake has no code', () => {
  expect(cross(new RangeError('too many queues'))).toBe('too many queues')
  expect(cross('text')).toBe('text')
})
