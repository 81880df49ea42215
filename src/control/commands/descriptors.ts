/** Commands by which a client hands descriptors over. */
import { StateError } from '../../errors.ts'
import type { Command } from '../command.ts'
import { command } from '../command.ts'

export const DESCRIPTOR_COMMANDS: readonly Command[] = [
  command({
    name: 'getfd',
    description:
      'Keeps the descriptor that comes with the command (SCM_RIGHTS) for this client, by name; one of that name before is closed.',
    arguments: {
      fdname: {
        kind: 'string',
        required: true,
        description: 'Name, for `fd=` and `fds=`; begins with no digit.',
      },
    },
    run: ({ fdname }, { session }) => {
      const [fd] = session.received
      if (fd === undefined) {
        throw new StateError('NO_FD', 'No file descriptor supplied via SCM_RIGHTS')
      }
      const old = session.fds.take(fdname)
      // Left with the command's own: the server closes them when the command is done.
      if (old !== undefined) session.received.push(old)
      session.fds.add(fdname, fd)
      session.received.shift()
    },
  }),
  command({
    name: 'closefd',
    description: 'Closes a descriptor that was kept.',
    arguments: { fdname: { kind: 'string', required: true, description: 'Its name.' } },
    run: ({ fdname }, { session }) => {
      const fd = session.fds.take(fdname)
      if (fd === undefined) {
        throw new StateError('NO_FD', `File descriptor named '${fdname}' not found`)
      }
      session.received.push(fd)
    },
  }),
]
