/** What ports owe to one another, and when the engine is asked for it. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { EngineRequest } from '../../../src/engine/messages.ts'
import type { ControlPort } from '../../../src/port/control-port.ts'
import { FollowingTap } from '../../../src/port/shape.ts'
import type { TapShape } from '../../../src/port/shape.ts'
import { agree, wantedShape } from '../../../src/switch/agree.ts'
import type { AgreeingPort } from '../../../src/switch/agree.ts'
import { Agreement } from '../../../src/switch/agreement.ts'
import type { AgreementParty } from '../../../src/switch/agreement.ts'
import { OFFLOADS_ALL, OFFLOADS_PLAIN } from '../../../src/wire/vnet-hdr.ts'

const [ON, OFF] = [true, false]
const preset = { vnetHdrLength: 12, attached: [ON, ON, ON, ON] }

/** A guest with these pairs enabled. */
const guest = (
  pairs: readonly number[],
  vnetHdrLength = 12,
): Pick<ControlPort, 'isConnected' | 'isPairEnabled' | 'vnetHdrLength'> => ({
  isConnected: true,
  vnetHdrLength,
  isPairEnabled: (pair: number) => pairs.includes(pair),
})

describe('wantedShape', () => {
  test('without a guest a TAP is as it was opened', () => {
    expect(wantedShape(preset, undefined)).toBe(preset)
    expect(wantedShape(preset, { ...guest([0], 10), isConnected: false })).toBe(preset)
    // Another TAP, say.
    expect(wantedShape(preset, { vnetHdrLength: 0 })).toBe(preset)
  })

  test('the guest decides the length of a vnet_hdr, when there is one', () => {
    expect(wantedShape(preset, guest([0], 10)).vnetHdrLength).toBe(10)
    expect(wantedShape({ ...preset, vnetHdrLength: 0 }, guest([0], 10)).vnetHdrLength).toBe(0)
  })

  test.each([
    [[0], [ON, OFF, OFF, OFF]],
    [
      [0, 1, 2],
      [ON, ON, ON, OFF],
    ],
    [
      [0, 1, 2, 3, 4, 5],
      [ON, ON, ON, ON],
    ],
    // Queue 0 always stays.
    [[2], [ON, OFF, ON, OFF]],
    // Not yet one of them, or only such as the TAP does not have.
    [[], [ON, ON, ON, ON]],
    [[7], [ON, ON, ON, ON]],
  ])('with the pairs %j enabled the queues are attached as %j', (pairs, attached) => {
    expect(wantedShape(preset, guest(pairs)).attached).toEqual(attached)
  })

  test('a single queue is never detached', () => {
    const single = { vnetHdrLength: 12, attached: [ON] }
    expect(wantedShape(single, guest([])).attached).toEqual([ON])
    expect(wantedShape(single, guest([3])).attached).toEqual([ON])
  })
})

describe('agree', () => {
  const port = (extra: Partial<AgreeingPort>): AgreeingPort => ({
    index: 3,
    open: {},
    peer: undefined,
    failure: undefined,
    merges: false,
    wasMerging: false,
    ...extra,
  })
  const tap = (asked: number, extra: Partial<AgreeingPort> = {}, possible = OFFLOADS_ALL) =>
    port({ open: { offloads: { possible, asked } }, ...extra })
  const peer = (txOffloads: number, isConnected?: boolean): AgreeingPort['peer'] => ({
    open: { txOffloads, vnetHdrLength: 12, ...(isConnected === undefined ? {} : { isConnected }) },
  })
  const offloads = (one: AgreeingPort): unknown[] => [...agree([one]).actions]

  test('nothing is left to do where all is agreed', () => {
    expect(agree([])).toEqual({ actions: [], isSettling: false })
    expect(offloads(tap(OFFLOADS_ALL))).toEqual([])
    expect(offloads(tap(7, { peer: peer(7) }))).toEqual([])
    expect(offloads(port({ merges: true, wasMerging: true }))).toEqual([])
  })

  test.each([
    ['on the switch all', undefined, OFFLOADS_ALL],
    ['on a link what the other end takes', peer(3), 3],
    ['on a link to a guest what it takes', peer(3, true), 3],
    ['before the guest comes all but tunnels', peer(0, false), OFFLOADS_PLAIN],
  ])('a TAP is asked for offloads: %s', (_, other, wanted) => {
    const action = { do: 'set-offloads', port: 3, offloads: wanted }
    expect(offloads(tap(0, { peer: other }))).toEqual([action])
  })

  test('it is asked for what is possible, and not when it has failed', () => {
    expect(offloads(tap(1, {}, 1))).toEqual([])
    expect(offloads(tap(0, {}, 1))).toEqual([{ do: 'set-offloads', port: 3, offloads: 1 }])
    expect(offloads(tap(0, { failure: 'deleted' }))).toEqual([])
  })

  test('merging is decided when the offloads are agreed', () => {
    const merge = { do: 'set-merging', port: 3, isMerging: true }
    expect(offloads(port({ merges: true }))).toEqual([merge])
    expect(offloads(tap(OFFLOADS_ALL, { merges: true }))).toEqual([merge])
    expect(offloads(tap(0, { merges: true }))).toMatchObject([{ do: 'set-offloads' }])
    expect(offloads(port({ wasMerging: true }))).toEqual([{ ...merge, isMerging: false }])
  })

  test('tunnels are off before the header becomes too short for them', () => {
    const shape = { vnetHdrLength: 24, attached: [ON] }
    const open = { offloads: { possible: OFFLOADS_ALL, asked: OFFLOADS_ALL } }
    const one = port({
      open: { ...open, tap: { preset: shape, asked: shape } },
      peer: { open: { ...guest([0], 12), txOffloads: OFFLOADS_PLAIN } },
    })
    expect(agree([one]).actions.map((action) => action.do)).toEqual(['set-offloads', 'shape'])
  })
})

describe('Agreement', () => {
  let tap: FollowingTap
  let peer: { open: ControlPort } | undefined
  let failure: string | undefined
  let asked: string[]
  let log: string[]
  /** Answers with what was asked for, unless a test says otherwise. */
  let answer: (shape: TapShape) => Promise<unknown>
  let agreement: Agreement
  let parties: AgreementParty[]

  beforeEach(() => {
    vi.useFakeTimers()
    tap = new FollowingTap(12, 4)
    peer = undefined
    failure = undefined
    asked = []
    log = []
    answer = (shape) => Promise.resolve({ ...shape, failures: [] })
    const request = (one: EngineRequest): Promise<unknown> => {
      if (one.op !== 'call' || one.call.do !== 'shape') throw new Error(one.op)
      const { vnetHdrLength, attached } = one.call.shape
      asked.push(`${one.port}: ${vnetHdrLength} ${attached.map(Number).join('')}`)
      return answer(one.call.shape)
    }
    parties = []
    agreement = new Agreement(
      { request },
      () => parties,
      (message) => log.push(message),
    )
  })

  afterEach(() => {
    vi.useRealTimers()
  })

  async function follow(pairs?: readonly number[], vnetHdrLength = 12): Promise<void> {
    peer = pairs === undefined ? undefined : { open: guest(pairs, vnetHdrLength) as ControlPort }
    const same = { merges: false, wasMerging: false }
    parties = [
      { index: 8, open: {} as ControlPort, peer: undefined, failure: undefined, ...same },
      {
        index: 7,
        open: { tap } as unknown as ControlPort,
        peer: peer as AgreementParty | undefined,
        failure,
        ...same,
      },
    ]
    await agreement.reach()
  }

  test('length and new queues are asked for at once, each change once', async () => {
    await follow()
    await follow([0, 1, 2, 3], 10)
    await follow([0, 1, 2, 3], 10)
    await follow()
    expect(asked).toEqual(['7: 10 1111', '7: 12 1111'])
    expect(tap.current).toEqual(preset)
  })

  test('queues are detached when the guest has stopped to enable more', async () => {
    for (const pairs of [[], [0], [0, 1]]) {
      await follow(pairs)
      await vi.advanceTimersByTimeAsync(60)
    }
    expect(asked).toEqual([])
    await vi.advanceTimersByTimeAsync(60)
    expect(asked).toEqual(['7: 12 1100'])
    await follow([0, 1, 2])
    expect(asked.slice(1)).toEqual(['7: 12 1110'])
    expect(tap.current.attached).toEqual([ON, ON, ON, OFF])
    await vi.advanceTimersByTimeAsync(1000)
    expect(asked).toHaveLength(2)
  })

  test('a guest that comes and goes at once detaches nothing', async () => {
    await follow([0])
    await follow()
    await vi.advanceTimersByTimeAsync(1000)
    expect(asked).toEqual([])
  })

  test('a failed TAP and one without descriptors are left alone', async () => {
    failure = 'deleted'
    await follow([0], 10)
    await vi.advanceTimersByTimeAsync(1000)
    expect(asked).toEqual([])
  })

  test('what the kernel refuses is told once, and asked for again with the next change', async () => {
    answer = () => Promise.resolve({ ...preset, failures: ['could not disable queue: no'] })
    await follow([0])
    await vi.advanceTimersByTimeAsync(200)
    await follow([0])
    await vi.advanceTimersByTimeAsync(200)
    expect(asked).toEqual(['7: 12 1000', '7: 12 1000'])
    expect(log).toEqual(['could not disable queue: no'])
    expect(tap.current.attached).toEqual([ON, ON, ON, ON])
    answer = () => Promise.reject(new Error('engine: gone'))
    await follow([0], 10)
    expect(log.slice(1)).toEqual(['engine: gone'])
  })

  test('the answer to an older request does not undo a newer one', async () => {
    let answerFirst: (value: unknown) => void = () => undefined
    answer = () => new Promise((resolve) => (answerFirst = resolve))
    const first = follow([0, 1, 2, 3], 10)
    answer = (shape) => Promise.resolve({ ...shape, failures: [] })
    const second = follow()
    answerFirst({ vnetHdrLength: 10, attached: preset.attached, failures: [] })
    await Promise.all([first, second])
    expect(asked).toEqual(['7: 10 1111', '7: 12 1111'])
    expect(tap.asked).toEqual(preset)
  })

  test('the least length is that of every request under way, not of the last one only', async () => {
    const answers: ((length: number) => void)[] = []
    answer = () =>
      new Promise((resolve) =>
        answers.push((vnetHdrLength) => resolve({ ...preset, vnetHdrLength, failures: [] })),
      )
    expect(tap.leastVnetHdrLength).toBe(12)
    const first = follow([0, 1, 2, 3], 10)
    const second = follow()
    expect(tap.leastVnetHdrLength).toBe(10)
    answers[0](10)
    await first
    expect(tap.leastVnetHdrLength).toBe(10)
    answers[1](12)
    await second
    expect(tap.leastVnetHdrLength).toBe(12)
  })

  test('what is done later is agreed on as well', async () => {
    await follow([0])
    Object.assign(peer!.open, guest([0], 10))
    await vi.advanceTimersByTimeAsync(200)
    expect(asked).toEqual(['7: 10 1000'])
  })

  test('after the end nothing is asked for', async () => {
    await follow([0])
    agreement.close()
    await vi.advanceTimersByTimeAsync(200)
    await follow([0], 10)
    expect(asked).toEqual([])
  })
})
