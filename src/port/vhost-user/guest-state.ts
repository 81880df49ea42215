/** What a front-end has said and where its queues stand, for a process that goes on with it, and from one. */
import type { DirtyLogFile } from '../../vhost-user/device.ts'
import type { RegionRow } from '../../vhost-user/codec.ts'
import type { SessionState, VringState } from '../../vhost-user/session-state.ts'
import type { QueueSetup } from '../../virtio/ring/device-queue.ts'
import type { CameFds, HandedFds, HandedReader, JsonValue } from '../handed.ts'
import type { MappedRegion } from './guest-mapping.ts'
import { mapLog, mapOpenRegion, unmapLog, unmapRegions } from './guest-mapping.ts'
import type { WindowBudget } from './window-shares.ts'

export interface DeviceState {
  readonly features: bigint
  readonly regions: readonly MappedRegion[]
  /** Queues that run, with where they stand. */
  readonly queues: readonly (readonly [number, QueueSetup])[]
  readonly enabled: readonly number[]
  readonly logFile: DirtyLogFile | null
}

/** The same with its log mapped. */
export interface CameDevice extends DeviceState {
  /** -1: there is none. */
  readonly logWindow: number
}

const hex = (bits: bigint): string => `0x${bits.toString(16)}`

export function writeDevice(device: DeviceState, fds: HandedFds): JsonValue {
  const { features, regions, queues, enabled, logFile } = device
  return {
    features: hex(features),
    regions: regions.map((region) => ({ ...rowOf(region), file: fds.add(region.file) })),
    queues: queues.map(([queue, setup]) => ({
      queue,
      size: setup.size,
      descriptorAddress: setup.descriptorAddress,
      availAddress: setup.availAddress,
      usedAddress: setup.usedAddress,
      logAddress: setup.logAddress,
      kickFd: fds.add(setup.kickFd),
      callFd: fds.add(setup.callFd),
    })),
    enabled: [...enabled],
    log:
      logFile === null
        ? null
        : { size: logFile.size, offset: logFile.offset, fd: fds.add(logFile.fd) },
  }
}

/** Where its queues stand, which is not part of the rest: it changes with every frame. */
export function writeBases({ queues }: DeviceState): JsonValue {
  return queues.map(([queue, { base }]) => [queue, base])
}

/** What is no base of a queue is left out. */
export function readBases(bases: JsonValue | undefined): Map<number, number> {
  const read = new Map<number, number>()
  for (const pair of Array.isArray(bases) ? (bases as readonly JsonValue[]) : []) {
    if (!Array.isArray(pair)) continue
    const [queue, base] = pair as readonly JsonValue[]
    if (Number.isSafeInteger(queue) && Number.isSafeInteger(base)) {
      read.set(queue as number, base as number)
    }
  }
  return read
}

/**
 * Maps its memory; its queues stand nowhere yet. Throws when that cannot be, nothing left mapped; the descriptors
 * stay the caller's.
 */
export function readDevice(state: HandedReader, fds: CameFds, windows: WindowBudget): CameDevice {
  const queues = state.objects('queues').map((queue): [number, QueueSetup] => [
    queue.number('queue'),
    {
      size: queue.number('size'),
      descriptorAddress: queue.number('descriptorAddress'),
      availAddress: queue.number('availAddress'),
      usedAddress: queue.number('usedAddress'),
      base: 0,
      logAddress: queue.number('logAddress'),
      kickFd: fds.at(queue.number('kickFd')),
      callFd: fds.at(queue.number('callFd')),
    },
  ])
  const [features, enabled] = [state.bits('features'), state.numbers('enabled')]
  const logFile = state.has('log') ? readLog(state.object('log'), fds) : null
  const regions: MappedRegion[] = []
  try {
    for (const region of state.objects('regions')) {
      const fd = fds.at(region.number('file'))
      regions.push(mapOpenRegion({ ...readRow(region), fd }, windows))
    }
    const logWindow = logFile === null ? -1 : mapLog(logFile, windows)
    return { features, regions, queues, enabled, logFile, logWindow }
  } catch (error) {
    unmapRegions(regions, windows)
    throw error
  }
}

/** Nothing of it is mapped any more. */
export function unmapDevice({ regions, logWindow }: CameDevice, windows: WindowBudget): void {
  unmapRegions(regions, windows)
  if (logWindow >= 0) unmapLog(logWindow, windows)
}

function readLog(state: HandedReader, fds: CameFds): DirtyLogFile {
  const fd = fds.at(state.number('fd'))
  return { fd, size: state.number('size'), offset: state.number('offset') }
}

function rowOf({ guestAddress, size, userAddress, mmapOffset }: RegionRow): RegionRow & JsonRow {
  return { guestAddress, size, userAddress, mmapOffset }
}

type JsonRow = { readonly [key: string]: number }

function readRow(state: HandedReader): RegionRow {
  return {
    guestAddress: state.number('guestAddress'),
    size: state.number('size'),
    userAddress: state.number('userAddress'),
    mmapOffset: state.number('mmapOffset'),
  }
}

export function writeSession(session: SessionState, fds: HandedFds): JsonValue {
  const { offered, features, protocolFeatures, status, regions, vrings } = session
  return {
    offered: hex(offered),
    features: hex(features),
    protocolFeatures: hex(protocolFeatures),
    status: hex(status),
    regions: regions.map(rowOf),
    vrings: vrings.map((vring) => ({
      ...vring,
      kickFd: fds.add(vring.kickFd),
      callFd: fds.add(vring.callFd),
      errFd: fds.add(vring.errFd),
    })),
  }
}

export function readSession(state: HandedReader, fds: CameFds): SessionState {
  return {
    offered: state.bits('offered'),
    features: state.bits('features'),
    protocolFeatures: state.bits('protocolFeatures'),
    status: state.bits('status'),
    regions: state.objects('regions').map(readRow),
    vrings: state.objects('vrings').map((vring) => readVring(vring, fds)),
  }
}

function readVring(vring: HandedReader, fds: CameFds): VringState {
  return {
    size: vring.number('size'),
    base: vring.number('base'),
    descriptorAddress: vring.number('descriptorAddress'),
    availAddress: vring.number('availAddress'),
    usedAddress: vring.number('usedAddress'),
    logAddress: vring.number('logAddress'),
    kickFd: fds.at(vring.number('kickFd')),
    callFd: fds.at(vring.number('callFd')),
    errFd: fds.at(vring.number('errFd')),
    isWanted: vring.boolean('isWanted'),
    isStarted: vring.boolean('isStarted'),
  }
}
