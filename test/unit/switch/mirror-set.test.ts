/** The mirrors of a switch beside an engine that notes what it is told. */
import { expect, test } from 'vitest'
import type { EngineClient } from '../../../src/engine/client.ts'
import type { EngineRequest, MirrorDescription } from '../../../src/engine/messages.ts'
import type { MirrorOptions } from '../../../src/switch/api.ts'
import { MirrorSet } from '../../../src/switch/mirror-set.ts'
import type { PortEntry } from '../../../src/switch/port-entry.ts'
import { PortTable } from '../../../src/switch/port-table.ts'
import { allOrNothing } from '../../../src/switch/undo.ts'

type Optional<T> = { [K in keyof T]: T[K] | undefined }

function setUp(...ids: string[]) {
  const told: (readonly MirrorDescription[])[] = []
  let isFailing = false
  const engine = {
    request: (request: EngineRequest): Promise<unknown> => {
      if (isFailing) {
        isFailing = false
        return Promise.reject(new Error('no'))
      }
      if (request.op === 'set-mirrors') told.push(request.mirrors)
      return Promise.resolve()
    },
    mirrorCounters: (number: number) => ({ frames: number, bytes: 100 * number }),
  }
  const ports = new PortTable()
  const addPort = (id: string): PortEntry => {
    const entry = { index: ports.freeIndex(id), options: { id }, peer: undefined }
    ports.add(entry as unknown as PortEntry)
    return entry as unknown as PortEntry
  }
  for (const id of ids) addPort(id)
  const mirrors = new MirrorSet(engine as unknown as EngineClient, ports)
  const add = (options: Partial<Optional<MirrorOptions>>, mayLack = false): Promise<void> => {
    const all = { name: 'm', outputPort: 'mon', ...options } as MirrorOptions
    return allOrNothing(
      (undo) => mirrors.add(all, undo, mayLack),
      () => undefined,
    )
  }
  return { told, ports, addPort, mirrors, add, fail: () => (isFailing = true) }
}

test('M1: the engine is told numbers of ports, and told anew when ports come and go', async () => {
  const { told, ports, addPort, mirrors, add } = setUp('a', 'b', 'mon')
  await mirrors.portsChanged()
  expect(told).toEqual([])
  await add({ selectAll: true, snapLength: 64 })
  await add({
    name: 'n',
    selectSrcPort: ['b'],
    selectDstPort: ['a', 'b'],
    selectVlan: ['10-12', 20],
  })
  const all = {
    number: 0,
    sources: [0, 1, 2],
    destinations: [0, 1, 2],
    vlans: null,
    output: 2,
    outputVlan: 0,
    filter: null,
    snapLength: 64,
  }
  const some = {
    number: 1,
    sources: [1],
    destinations: [0, 1],
    vlans: [
      [10, 12],
      [20, 20],
    ],
    output: 2,
    outputVlan: 0,
    filter: null,
    snapLength: 0,
  }
  expect(told.at(-1)).toEqual([all, some])
  ports.remove(ports.entry('b'))
  ports.remove(ports.entry('mon'))
  await mirrors.portsChanged()
  expect(told.at(-1)).toEqual([
    { ...all, sources: [0], destinations: [0], output: -1 },
    { ...some, sources: [], destinations: [0], output: -1 },
  ])
  expect(mirrors.infos().map(({ missing }) => missing)).toEqual([['mon'], ['b', 'mon']])
  for (const id of ['mon', 'c']) addPort(id)
  await mirrors.portsChanged()
  expect(told.at(-1)![0]).toEqual({ ...all, output: 1 })
})

test('M4: the engine is told the VLAN of copies; a mirror has one output', async () => {
  const { told, mirrors, add } = setUp('a', 'mon')
  await add({ selectAll: true, outputPort: undefined, outputVlan: 100 })
  expect(told.at(-1)).toMatchObject([{ output: -1, outputVlan: 100 }])
  expect(mirrors.infos()).toMatchObject([{ options: { outputVlan: 100 }, missing: [] }])
  mirrors.checkWirable('a')
  const more = { name: 'n', selectAll: true }
  const oneOutput = 'it has one output: give output-port, output-vlan or erspan'
  await expect(add({ ...more, outputVlan: 100 })).rejects.toThrow(oneOutput)
  await expect(add({ ...more, outputPort: undefined })).rejects.toThrow(oneOutput)
  for (const outputVlan of [0, 4095, 1.5]) {
    const wrong = add({ ...more, outputPort: undefined, outputVlan })
    await expect(wrong).rejects.toThrow('output-vlan must be 1 to 4094')
  }
})

test('a mirror that ends leaves its number to the next one; each has its counters', async () => {
  const { told, mirrors, add } = setUp('a', 'mon')
  for (const name of ['x', 'y', 'z']) await add({ name, selectSrcPort: ['a'] })
  await mirrors.remove('y')
  await add({ name: 'w', selectSrcPort: ['a'] })
  expect(told.at(-1)!.map(({ number }) => number)).toEqual([0, 2, 1])
  expect(mirrors.infos().map(({ options, bytes }) => [options.name, bytes])).toEqual([
    ['x', 0],
    ['z', 200],
    ['w', 100],
  ])
  await expect(mirrors.remove('y')).rejects.toMatchObject({ code: 'MIRROR_NOT_FOUND' })
})

test('one that is wrong, or that the engine does not take, is not there', async () => {
  const { mirrors, add, ports, fail } = setUp('a', 'b', 'mon')
  const all = { selectAll: true }
  await expect(add({})).rejects.toMatchObject({ code: 'BAD_MIRROR' })
  await expect(add({ ...all, snapLength: 13 })).rejects.toThrow('snaplen must be 14 to 65535')
  await expect(add({ ...all, snapLength: 20.5 })).rejects.toThrow('snaplen must be 14 to 65535')
  await expect(add({ ...all, selectVlan: [5000] })).rejects.toMatchObject({ code: 'BAD_OPTION' })
  await expect(add({ ...all, outputPort: 'x' })).rejects.toMatchObject({ code: 'PORT_NOT_FOUND' })
  await expect(add({ selectSrcPort: ['x'] })).rejects.toMatchObject({ code: 'PORT_NOT_FOUND' })
  ports.entry('mon').peer = ports.entry('b')
  await expect(add(all)).rejects.toThrow('its output "mon" is wired to "b"')
  ports.entry('mon').peer = undefined
  fail()
  await expect(add(all)).rejects.toThrow('no')
  expect(mirrors.infos()).toEqual([])
  await add(all)
  await expect(add(all)).rejects.toThrow('there is a mirror of that name already')
  expect(() => mirrors.checkWirable('mon')).toThrow('port "mon" is the output of mirror "m"')
  mirrors.checkWirable('a')
})

test('there are 31 at most', async () => {
  const { add } = setUp('a', 'mon')
  for (let n = 0; n < 31; n++) await add({ name: `m${n}`, selectAll: true })
  await expect(add({ selectAll: true })).rejects.toThrow('a switch has at most 31 mirrors')
})

test('M1: one that was there before may lack ports, and has them when they come', async () => {
  const { told, addPort, mirrors, add } = setUp('a')
  const options = { selectSrcPort: ['a', 'b'] }
  await expect(add(options)).rejects.toMatchObject({ code: 'PORT_NOT_FOUND' })
  await add(options, true)
  expect(mirrors.infos()).toMatchObject([{ missing: ['b', 'mon'] }])
  expect(told.at(-1)).toMatchObject([{ sources: [0], output: -1 }])
  addPort('mon')
  addPort('b')
  await mirrors.portsChanged()
  expect(told.at(-1)).toMatchObject([{ sources: [0, 2], output: 1 }])
})
