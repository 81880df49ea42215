/** Words for people: counts with their nouns, near words, errors in one line. */
import { describe, expect, test } from 'vitest'
import { ConfigError, ConfigErrors, FramepumpError, SysError } from '../../src/errors.ts'
import { counted, explain, nearest, systemReason } from '../../src/text.ts'

test('one is one, everything else is many', () => {
  expect([0, 1, 2].map((count) => counted(count, 'port'))).toEqual(['0 ports', '1 port', '2 ports'])
  expect([1, 3].map((count) => counted(count, 'entry', 'entries'))).toEqual([
    '1 entry',
    '3 entries',
  ])
})

describe('a word that is near', () => {
  const OPTIONS = ['id', 'fd', 'fds', 'ifname', 'queues', 'vnet_hdr', 'up', 'owner', 'downscript']
  test.each([
    ['ifnam', 'ifname'],
    ['queue', 'queues'],
    ['ifnmae', 'ifname'],
    ['onwer', 'owner'],
    ['vnethdr', 'vnet_hdr'],
    ['dwnscrpt', 'downscript'],
    ['fdd', 'fd'],
  ])('%s is %s', (word, wanted) => expect(nearest(word, OPTIONS)).toBe(wanted))

  test.each(['foo', 'x', '', 'a', 'io', 'ports', 'mode', 'dowxxript'])('%j is none', (word) =>
    expect(nearest(word, OPTIONS)).toBeUndefined(),
  )
})

describe('an error in one line', () => {
  test('says what, what to do, and its code', () => {
    const error = new FramepumpError('TAP_HELD', 'x0 is held', { hint: 'stop its owner' })
    expect(explain(error)).toBe('x0 is held (stop its owner) [TAP_HELD]')
    expect(explain(new FramepumpError('ENGINE', 'it is lost'))).toBe('it is lost [ENGINE]')
  })

  test('names its port once', () => {
    const error = new SysError('TAP_FEATURE', 'multiqueue required')
    error.port = 'vm1'
    expect(explain(error)).toBe('port "vm1": multiqueue required [TAP_FEATURE]')
    const named = new SysError('DESCRIPTOR_SHARE', 'port "vm1" may need 10 descriptors')
    named.port = 'vm1'
    expect(explain(named)).toBe('port "vm1" may need 10 descriptors [DESCRIPTOR_SHARE]')
  })

  test('may be several', () => {
    const errors = ['a', 'b'].map((text) => new ConfigError('CONFIG_KEY', text, { hint: text }))
    expect(explain(new ConfigErrors(errors))).toBe('a (a) [CONFIG_KEY]; b (b) [CONFIG_KEY]')
  })

  test('of the system has words, and neither call nor number', () => {
    const raw = Object.assign(new Error("ENOENT: no such file or directory, mkdir '/x'"), {
      code: 'ENOENT',
      errno: -2,
    })
    expect(systemReason(raw)).toBe('No such file or directory')
    expect(explain(raw)).toBe('No such file or directory')
    // Not in the table of glibc's texts: libuv's.
    expect(systemReason(Object.assign(new Error('x'), { errno: -75 }))).toMatch(/^Value too large/)
    expect(systemReason(new Error('just so'))).toBe('just so')
    expect(systemReason('thrown')).toBe('thrown')
  })
})
