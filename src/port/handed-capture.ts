/** A capture that another process goes on with, as JSON. */
import type { CaptureState } from '../capture/capture.ts'
import type { HandedReader, JsonValue } from './handed.ts'

export function writeCapture(state: CaptureState): JsonValue {
  const interfaces = state.interfaces.map(([name, frames, dropped]) => ({ name, frames, dropped }))
  return { ...state, ports: state.ports === null ? null : [...state.ports], interfaces }
}

export function readCapture(state: HandedReader): CaptureState {
  return {
    path: state.string('path'),
    format: state.string('format') === 'pcap' ? 'pcap' : 'pcapng',
    direction: directionOf(state.string('direction')),
    snapLength: state.number('snapLength'),
    countLimit: state.number('countLimit'),
    ports: state.has('ports') ? state.list('ports').map(String) : null,
    frames: state.number('frames'),
    dropped: state.number('dropped'),
    bytes: state.number('bytes'),
    interfaces: state
      .objects('interfaces')
      .map((one): [string, number, number] => [
        one.string('name'),
        one.number('frames'),
        one.number('dropped'),
      ]),
    startNs: String(BigInt(state.string('startNs'))),
    ...(state.has('isComplete') ? { isComplete: state.boolean('isComplete') } : {}),
    ...(state.has('ring') ? { ring: ringOf(state.object('ring')) } : {}),
  }
}

const ringOf = (ring: HandedReader): NonNullable<CaptureState['ring']> => ({
  head: ring.number('head') | 0,
  tail: ring.number('tail') | 0,
})

function directionOf(text: string): CaptureState['direction'] {
  return text === 'in' || text === 'out' ? text : 'both'
}
