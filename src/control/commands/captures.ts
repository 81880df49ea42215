/** Commands about captures: starting and stopping them, which run. */
import { StateError } from '../../errors.ts'
import type { Members, StaticMembers } from '../../schema/value.ts'
import type { Capture, CaptureOptions, CaptureSummary } from '../../switch/api.ts'
import type { Command, CommandContext } from '../command.ts'
import { command } from '../command.ts'
import type { Session } from '../session.ts'

const START = {
  ports: {
    kind: 'list',
    of: { kind: 'string' },
    absent: 'all, those to come included',
    description: 'Ports whose frames are captured.',
  },
  direction: {
    kind: 'choice',
    values: ['in', 'out', 'both'],
    default: 'in',
    description:
      '`in`: each frame once, where it enters the switch; `out`: where it leaves, once for each port that it is given to.',
  },
  snaplen: {
    kind: 'number',
    unit: 'bytes',
    default: 262_144,
    description: 'Kept of each frame, 1..262144.',
  },
  count: {
    kind: 'number',
    unit: 'frames',
    absent: 'no end',
    description: 'After which it ends.',
  },
  format: {
    kind: 'choice',
    values: ['pcapng', 'pcap'],
    absent: '`pcapng`, or `pcap` when the path says so',
    description: 'Of the file.',
  },
  fd: {
    kind: 'string',
    description:
      'Where to, by `getfd`: it is closed at the end, and the capture ends with the client.',
  },
  path: { kind: 'string', description: 'In place of `fd`, a file, which is made or overwritten.' },
  truncate: {
    kind: 'boolean',
    default: false,
    description: 'What the file of `fd` holds goes when the capture has been accepted.',
  },
} as const satisfies Members

export const CAPTURE_COMMANDS: readonly Command[] = [
  command({
    name: 'capture-start',
    description: 'Starts a capture into a file, or into a descriptor of the client.',
    arguments: START,
    returns: '`{id}`',
    run: startCapture,
  }),
  command({
    name: 'capture-stop',
    description: 'Ends a capture, and completes its file.',
    arguments: { id: { kind: 'number', required: true, description: 'The capture.' } },
    returns: '`{frames, dropped, bytes, error?}`',
    run: ({ id }, { target }): Promise<CaptureSummary> => target.switch.capture(id).stop(),
  }),
  command({
    name: 'query-captures',
    description: 'The captures that run, and how far they have come.',
    arguments: {},
    returns:
      'list of `{id, to, format, direction, ports?, snaplen-bytes, count-frames?, frames, dropped-frames}`',
    run: (_, { target }) =>
      target.switch.captures().map(({ snapLength, count, frames, dropped, ...rest }) => ({
        ...rest,
        'snaplen-bytes': snapLength,
        ...(count === undefined ? {} : { 'count-frames': count }),
        frames,
        'dropped-frames': dropped,
      })),
  }),
]

async function startCapture(
  args: StaticMembers<typeof START>,
  { target, session }: CommandContext,
): Promise<unknown> {
  const options = captureOptions(args, session)
  const capture = await target.switch.startCapture(options).catch((error: unknown) => {
    // Not taken: the server closes it with what the command leaves.
    if ('fd' in options.to) session.received.push(options.to.fd)
    throw target.explain(error)
  })
  if (args.fd !== undefined) endWith(session, capture)
  return { id: capture.id }
}

/** A capture into a descriptor of a client ends with the client. */
export function endWith(session: Session, capture: Capture): void {
  session.captures.set(capture.id, () => void capture.stop())
  void capture.done.then(() => session.captures.delete(capture.id))
}

function captureOptions(args: StaticMembers<typeof START>, session: Session): CaptureOptions {
  const { ports, direction, snaplen, count, format, fd, path, truncate = false } = args
  if ((fd === undefined) === (path === undefined)) {
    throw new StateError('QMP_ARGUMENT', `either 'fd' or 'path' is needed`)
  }
  const options = {
    ...(ports === undefined ? {} : { ports }),
    ...(direction === undefined ? {} : { direction }),
    ...(snaplen === undefined ? {} : { snapLength: snaplen }),
    ...(count === undefined ? {} : { count }),
    ...(format === undefined ? {} : { format }),
  }
  if (path !== undefined) return { ...options, to: { path } }
  // The capture closes it at its end.
  const given = session.fds.take(fd!)
  if (given === undefined) {
    throw new StateError('NO_FD', `File descriptor named '${fd}' has not been found`)
  }
  return { ...options, to: { fd: given, truncate } }
}
