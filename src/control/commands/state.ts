/** Commands about the daemon: what it is, what it does, its config, its end. */
import { StateError } from '../../errors.ts'
import type { Command } from '../command.ts'
import { command } from '../command.ts'
import { NotFound } from '../error-answers.ts'
import { NEGOTIATION } from '../session.ts'

export const STATE_COMMANDS: readonly Command[] = [
  command({
    name: NEGOTIATION,
    description:
      'Ends the negotiation, which every connection begins with: no other command goes before.',
    arguments: {
      enable: {
        kind: 'list',
        of: { kind: 'string' },
        description: 'Capabilities of the greeting, which has none.',
      },
    },
    run: ({ enable = [] }, { session }) => {
      if (session.isNegotiated) {
        throw new NotFound('Capabilities negotiation is already complete, command ignored')
      }
      // None are offered in the greeting: QEMU's one is `oob`.
      if (enable.length > 0) {
        const text = `Parameter 'enable' does not accept value '${enable[0]}'`
        throw new StateError('QMP_ARGUMENT', text)
      }
      session.isNegotiated = true
    },
  }),
  command({
    name: 'query-version',
    description: 'The version of the daemon.',
    arguments: {},
    returns: '`{qemu: {major, minor, micro}, package}`',
    run: (_, { target }) => ({ qemu: target.version, package: 'framepump' }),
  }),
  command({
    name: 'query-status',
    description: 'The run state, the tier of TAP input and output, and what the daemon may do.',
    arguments: {},
    returns:
      "`{status, running, ready, io, io-reason?, privileges}`; status is `running`, `paused`, `inmigrate` or another of QEMU's; ready once the start is over",
    run: (_, { target }) => {
      const { runState, io, ioReason } = target.switch
      return {
        status: runState,
        running: runState === 'running',
        ready: target.isReady(),
        io,
        ...(ioReason === undefined ? {} : { 'io-reason': ioReason }),
        privileges: target.privileges(),
      }
    },
  }),
  command({
    name: 'stop',
    description: "Ends reading: frames then wait in the kernel's queues.",
    arguments: {},
    run: async (_, { target }) => {
      if (target.switch.runState !== 'running') return
      await target.switch.pause()
      target.sendEvent('STOP', {})
    },
  }),
  command({
    name: 'cont',
    description: 'Forwarding begins, or goes on.',
    arguments: {},
    run: async (_, { target }) => {
      if (target.switch.runState === 'running') return
      await target.resume()
      target.sendEvent('RESUME', {})
    },
  }),
  command({
    name: 'config-reload',
    description: 'Applies the difference between the config file and what runs of it.',
    arguments: {},
    returns:
      '`{actions, needs-restart}`: what was done, and keys that take effect at the next start',
    run: (_, { target }) => target.reload(),
  }),
  command({
    name: 'quit',
    description: 'Ends the daemon.',
    arguments: {},
    run: (_, { target }) => target.quit(),
  }),
]
