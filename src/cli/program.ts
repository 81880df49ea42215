/** framepump: argv -> one call into the library. One file per command. */
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { bench } from './bench.ts'
import { capture } from './capture.ts'
import type { CaptureCommandOptions } from './capture.ts'
import { EXIT_BAD_USAGE, packageVersion, reportError } from './common.ts'
import { ctl } from './ctl.ts'
import { demo } from './demo.ts'
import { doctor } from './doctor.ts'
import { blameLimit } from './open-files.ts'
import { outputFailure, watchOutput } from './output.ts'
import { shimFailure } from '../native/shim.ts'
import { printable } from '../switch/printable.ts'
import { run } from './run.ts'
import type { RunOptions } from './run.ts'
import { show, SHOW_SUBJECTS } from './show.ts'
import type { ShowSubject } from './show.ts'

/** The exit code of the command that ran. */
let exitCode = 0
const finish =
  <T extends unknown[]>(command: (...args: T) => Promise<number>) =>
  async (...args: T): Promise<void> => {
    exitCode = await command(...args)
  }

function collect(value: string, previous: readonly string[]): string[] {
  return [...previous, value]
}

function positive(value: string): number {
  const number = Number(value)
  if (!Number.isSafeInteger(number) || number < 1) {
    throw new InvalidArgumentError('It must be a whole number above 0.')
  }
  return number
}

const control = (): Option => new Option('--control <path>', 'control socket of the daemon')

const program = new Command('framepump')
  .description('A virtual switch in userspace: pumps Ethernet frames between TAP devices.')
  .version(packageVersion())
  .exitOverride()
  .configureOutput({
    // It repeats arguments, and those may be the names of files. A suggestion has a line of its own.
    outputError: (text, write) => {
      const line = text
        .replace(/^error: /, 'framepump: ')
        .trimEnd()
        .replaceAll('\n(', ' (')
      write(`${printable(line)} [BAD_ARGUMENT]\n`)
    },
  })

program.hook('preAction', (_, command) => {
  if (shimFailure === undefined || command.name() === 'doctor') return
  blameLimit()
  throw shimFailure
})

program
  .command('run')
  .description('run the switch daemon in the foreground')
  .option('--config <file>', 'YAML config file')
  .option('--port <spec>', 'add a port, as type,id=ID,key=value,... (repeatable)', collect, [])
  .option('--link <a,b>', 'wire two ports to each other (repeatable)', collect, [])
  .addOption(control())
  .addOption(
    new Option('--io <tier>', 'tier of TAP input and output').choices([
      'auto',
      'io_uring-multishot',
      'read-write',
    ]),
  )
  .option(
    '--incoming <defer>',
    'wait for migrate-incoming before ports of a predecessor are opened',
  )
  .option('--user <user[:group]>', 'run as this user, with the capabilities that ports need')
  .addOption(
    new Option(
      '--privileges <mode>',
      'after the start: on keeps what ports to come need, locked nothing, off everything',
    ).choices(['on', 'locked', 'off']),
  )
  .option('--check', 'check the config and exit')
  .action(finish((options: RunOptions) => run(options)))

program
  .command('demo')
  .description('make TAP devices, pump real traffic between them, show it, leave a capture')
  .option('--seconds <n>', 'how long the TCP transfer lasts', positive, 5)
  .option('--capture <file>', 'where the capture goes', 'framepump-demo.pcapng')
  .addOption(
    new Option('--io <tier>', 'tier of TAP input and output')
      .choices(['auto', 'io_uring-multishot', 'read-write'])
      .default('auto'),
  )
  .option('--json', 'print the summary as JSON')
  .action(finish(demo))

program
  .command('ctl')
  .description('one command on the control socket, e.g. ctl set_link name=vm1 up=off')
  .argument('<command>')
  .argument('[arguments...]', 'key=value words or one JSON object')
  .addOption(control())
  .action(finish(ctl))

program
  .command('show')
  .description('tables of a running daemon')
  .argument('<subject>', SHOW_SUBJECTS.join(', '), (value: string): ShowSubject => {
    if (SHOW_SUBJECTS.includes(value as ShowSubject)) return value as ShowSubject
    throw new InvalidArgumentError(`Allowed are ${SHOW_SUBJECTS.join(', ')}.`)
  })
  .addOption(control())
  .option('--json', 'print JSON')
  .action(finish(show))

program
  .command('capture')
  .description('live capture of a running daemon, pcapng (.pcap when the name says so)')
  .addOption(control())
  .option('-i, --interface <ports>', 'ports, separated by commas; default: all')
  .addOption(
    new Option(
      '-d, --direction <direction>',
      'in: each frame once, where it enters the switch; out: where it leaves; both: twice or more',
    )
      .choices(['in', 'out', 'both'])
      .default('in'),
  )
  .requiredOption('-w, --write <file>', 'file, or - for standard output')
  .option('-s, --snaplen <bytes>', 'bytes kept of each frame', positive)
  .option('-c, --count <frames>', 'end after so many frames', positive)
  .option('--json', 'print the summary as JSON (to standard error)')
  .action(finish((options: CaptureCommandOptions) => capture(options)))

program
  .command('doctor')
  .description('what this machine offers, and how to fix what it lacks')
  .option('--json', 'print JSON')
  .action(finish(doctor))

program
  .command('bench')
  .description('the benchmarks of bench/ (in a checkout)')
  .option('--rows <list>', 'rows to run, separated by commas')
  .option('--peers <list>', 'peers to run, separated by commas')
  .option('--json <file>', 'write all figures to a file')
  .option('--quick', 'short runs, for a look')
  .action(finish(bench))

watchOutput()
try {
  await program.parseAsync()
} catch (error) {
  // commander has said what is wrong; help and version are no errors.
  if (error instanceof CommanderError) exitCode = error.exitCode === 0 ? 0 : EXIT_BAD_USAGE
  else exitCode = reportError(error)
}
process.exitCode = exitCode
// What was written is told to have failed only now, if it has.
setImmediate(() => (process.exitCode ||= outputFailure()))
