/** Arguments of commands that are lists and maps, as those of mirror-add are: no more than a config file takes. */
import { expect, test } from 'vitest'
import { MIRROR } from '../../../src/config/mirrors.ts'
import { checkArguments } from '../../../src/control/arguments.ts'

const right = { name: 'm', 'select-src-port': ['a'], 'output-port': 'b' }
const session = { 'remote-ip': '10.0.0.1', 'session-id': 1 }
const check = (args: Record<string, unknown>): void =>
  checkArguments({ arguments: MIRROR, isOpen: false }, args)

test.each([
  {},
  { 'select-vlan': [5, '10-20'] },
  { erspan: { ...session, direction: 'egress', key: 0 } },
  { 'select-src-port': [] },
])('%j is right', (more) => {
  check({ ...right, ...more })
})

test.each([
  [
    { 'select-src-port': ['a', 'a'] },
    "Parameter 'select-src-port' must not have the same entry twice",
  ],
  [{ 'select-vlan': [] }, "Parameter 'select-vlan' must have 1 to 4096 entries"],
  [{ 'select-vlan': [4096] }, "Invalid parameter type for 'select-vlan[0]', expected: string"],
  [{ erspan: {} }, "Parameter 'erspan.remote-ip' is missing"],
  [{ erspan: { 'remote-ip': '10.0.0.1' } }, "Parameter 'erspan.session-id' is missing"],
  [
    { erspan: { ...session, 'session-id': '1' } },
    "Invalid parameter type for 'erspan.session-id', expected: number",
  ],
  [{ erspan: { ...session, id: 1 } }, "Parameter 'erspan.id' is unexpected"],
  [
    { erspan: { ...session, direction: 'up' } },
    "Parameter 'erspan.direction' must be ingress or egress",
  ],
])('%j is refused', (more, why) => {
  expect(() => check({ ...right, ...more })).toThrow(why)
})
