/** Which stages stand before a port, by what it takes. */
import { afterAll, expect, test } from 'vitest'
import { Egress, NO_LIMIT, StageMachinery } from '../../../src/engine/egress.ts'
import { FinishStage } from '../../../src/offload/finish-stage.ts'
import { MergeStage } from '../../../src/offload/merge-stage.ts'
import type { EnginePort } from '../../../src/port/contract.ts'
import { NOBODY_WATCHES, policies } from '../../support/policies.ts'

const [CSUM, TSO4, TSO6, USO] = [0x01, 0x02, 0x04, 0x60]
const machinery = new StageMachinery(
  new Float64Array(128),
  policies().vlans,
  NOBODY_WATCHES,
  () => undefined,
)
afterAll(() => machinery.close())

function port(txOffloads: number, deliveryNs?: number): EnginePort {
  const rest = { transmit: () => undefined, endTurn: () => undefined, close: () => undefined }
  return { index: 1, txOffloads, ...(deliveryNs === undefined ? {} : { deliveryNs }), ...rest }
}

test('frames that need nothing are given to the port itself', () => {
  for (const takes of [0, CSUM | TSO4 | TSO6]) {
    const one = port(takes)
    expect(new Egress(one, machinery).plain).toBe(one)
  }
})

test('there is merging before a port that takes TSO, and before no other', () => {
  const merging = (takes: number): unknown => new Egress(port(takes), machinery).merging
  expect(merging(CSUM | TSO4)).toBeInstanceOf(MergeStage)
  expect(merging(CSUM | TSO6)).toBeInstanceOf(MergeStage)
  for (const takes of [0, CSUM, CSUM | USO]) {
    const one = port(takes)
    expect(new Egress(one, machinery).merging).toBe(one)
  }
})

test('they are put together anew when the port takes something else', () => {
  const one = port(0)
  const egress = new Egress(one, machinery)
  const { finishing } = egress
  expect(finishing).toBeInstanceOf(FinishStage)
  egress.setTxOffloads(CSUM | TSO4)
  expect(egress.txOffloads).toBe(CSUM | TSO4)
  expect(egress.merging).toBeInstanceOf(MergeStage)
  expect(egress.finishing).not.toBe(finishing)
  egress.setTxOffloads(0)
  expect([egress.plain, egress.merging]).toEqual([one, one])
})

test('two tags do not count against the mtu; 0 is none', () => {
  const egress = new Egress(port(0), machinery)
  expect(egress.lengthMax).toBe(NO_LIMIT)
  egress.setMtu(1500)
  expect(egress.lengthMax).toBe(1500 + 14 + 8)
  egress.setMtu(0)
  expect(egress.lengthMax).toBe(NO_LIMIT)
})

test('a port that does not say what it costs costs a copy', () => {
  expect(new Egress(port(0), machinery).deliveryNs).toBe(100)
  expect(new Egress(port(0, 1500), machinery).deliveryNs).toBe(1500)
})
