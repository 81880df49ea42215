import { expect, test } from 'vitest'
import { parseConfig } from '../../../src/config/load.ts'
import { mergePrivileges } from '../../../src/config/privileges.ts'

const parse = (yaml: string): unknown => parseConfig(yaml, 'f').privileges

test('privileges are read; numbers are names too', () => {
  expect(parse('privileges: { user: framepump, keep: [net-admin], mode: on }')).toEqual({
    user: 'framepump',
    keep: ['net-admin'],
    mode: 'on',
  })
  expect(parse('privileges: { user: 1000, group: 100 }')).toEqual({ user: '1000', group: '100' })
  expect(parse('privileges: { mode: off }')).toEqual({ mode: 'off' })
  expect(parse('privileges: { scripts: on }')).toEqual({ scripts: true })
  expect(parse('privileges: { scripts: "no" }')).toEqual({ scripts: false })
  expect(parse('privileges:')).toBeUndefined()
  expect(parse('{}')).toBeUndefined()
})

test.each([
  ['privileges: { keep: [sys-module] }', 'f:1:22: privileges.keep[0]: must be one of net-admin'],
  ['privileges: { mode: lock }', 'must be one of on, locked, off'],
  ['privileges: { usr: x }', 'privileges.usr: unknown key'],
  ['privileges: { scripts: 1 }', 'privileges.scripts: must be on or off'],
  ['privileges: { user: "" }', 'privileges.user'],
  ['privileges: { user: -1 }', 'privileges.user'],
  ['privileges: { group: x }', 'privileges.group: needs a user'],
  ['privileges: { mode: locked, keep: [net-admin] }', 'mode: locked keeps nothing'],
  ['privileges: { mode: locked, scripts: true }', 'mode: locked runs none'],
  [
    'privileges: { mode: locked }\nports: [ { id: a, type: tap, downscript: /x } ]',
    'locked runs no scripts, and port "a" has a downscript',
  ],
])('%s is refused', (yaml, message) => {
  expect(() => parse(yaml)).toThrow(message)
})

test('locked may have scripts that run at the start only, and no downscript', () => {
  const port = 'ports: [ { id: a, type: tap, script: /x, downscript: no } ]'
  expect(parse(`privileges: { mode: locked }\n${port}`)).toEqual({ mode: 'locked' })
})

test('the command line overrides; a user brings its own group', () => {
  const base = { user: 'a', group: 'b', keep: ['net-admin'] }
  expect(mergePrivileges(undefined, undefined, undefined)).toBeUndefined()
  expect(mergePrivileges(base, undefined, undefined)).toBe(base)
  expect(mergePrivileges(base, 'c', undefined)).toEqual({ keep: ['net-admin'], user: 'c' })
  expect(mergePrivileges(base, 'c:d', 'off')).toEqual({
    keep: ['net-admin'],
    user: 'c',
    group: 'd',
    mode: 'off',
  })
  expect(mergePrivileges(base, undefined, 'on')).toEqual({ ...base, mode: 'on' })
  for (const user of ['', ':', 'a:', ':b', 'a:b:c']) {
    expect(() => mergePrivileges(undefined, user, undefined)).toThrow('give USER or USER:GROUP')
  }
})
