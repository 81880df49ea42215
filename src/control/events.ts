/** What clients are told unasked: QEMU's events where QEMU has them, then ours. */
import type { Members, StaticMembers } from '../schema/value.ts'

const EVENT_TABLE = {
  STOP: { description: 'Forwarding was stopped.', data: {} },
  RESUME: { description: 'Forwarding goes on, or begins.', data: {} },
  SHUTDOWN: {
    description: 'The daemon ends.',
    data: {
      guest: { kind: 'boolean', required: true, description: 'Always false, as in QEMU.' },
      reason: { kind: 'string', required: true, description: 'Always `host-qmp-quit`.' },
    },
  },
  MIGRATION: {
    description: 'A hand-over to or from another process has come so far.',
    data: {
      status: {
        kind: 'string',
        required: true,
        description: '`setup`, `active`, `device`, `completed`, `failed` or `cancelled`.',
      },
    },
  },
  PORT_ADDED: {
    description: 'A port is there.',
    data: { id: { kind: 'string', required: true, description: 'The port.' } },
  },
  PORT_REMOVED: {
    description: 'A port is gone.',
    data: { id: { kind: 'string', required: true, description: 'The port.' } },
  },
  PORT_LINK_CHANGED: {
    description:
      'The state of a port has changed. Of one port 16 are told at once, then ten a second, and the last one in any case.',
    data: {
      id: { kind: 'string', required: true, description: 'The port.' },
      state: { kind: 'string', required: true, description: 'As in `query-ports`.' },
      up: { kind: 'boolean', required: true, description: 'It is `open` or `connected`.' },
    },
  },
  LOOP_DETECTED: {
    description: 'Ports seem to be connected outside the switch as well.',
    data: {
      mac: {
        kind: 'string',
        required: true,
        description: 'An address that keeps moving between them.',
      },
      ports: {
        kind: 'list',
        of: { kind: 'string' },
        required: true,
        description: 'Two or more.',
      },
      moves: {
        kind: 'number',
        required: true,
        description: 'How often it and others moved in the second before.',
      },
    },
  },
  CAPTURE_ENDED: {
    description: 'A capture that `capture-start` began has ended.',
    data: {
      id: { kind: 'number', required: true, description: 'The capture.' },
      frames: { kind: 'number', required: true, description: 'Frames written.' },
      dropped: {
        kind: 'number',
        required: true,
        description: 'Frames that were lost because the writer was slower.',
      },
      bytes: { kind: 'number', required: true, description: 'Bytes written.' },
      error: { kind: 'string', description: 'Why it ended by itself.' },
    },
  },
} as const

export type EventName = keyof typeof EVENT_TABLE
export type EventData<E extends EventName> = StaticMembers<(typeof EVENT_TABLE)[E]['data']>

export const EVENTS: Readonly<
  Record<EventName, { readonly description: string; readonly data: Members }>
> = EVENT_TABLE
