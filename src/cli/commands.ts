/**
 * The command line as a table: each command with its arguments and options, what they are for, their
 * units and defaults. Help, completion of shells and the man page come from it. What a command does is
 * given from outside (program.ts), so that reading the table runs nothing.
 */
import { Argument, Command, InvalidArgumentError, Option } from 'commander'
import { printable } from '../switch/printable.ts'
import type { BenchOptions } from './bench.ts'
import type { CaptureCommandOptions } from './capture.ts'
import type { DemoOptions } from './demo.ts'
import type { Shell } from './completion.ts'
import { SHELLS } from './completion.ts'
import type { RunOptions } from './run.ts'
import type { ShowOptions } from './show.ts'
import type { UpgradeOptions } from './upgrade.ts'
import type { WaitOptions } from './wait.ts'

export const SHOW_SUBJECTS = [
  'ports',
  'macs',
  'groups',
  'vlans',
  'policy',
  'stats',
  'links',
  'mirrors',
  'offloads',
  'privileges',
] as const
export type ShowSubject = (typeof SHOW_SUBJECTS)[number]

const TIERS = ['auto', 'io_uring-multishot', 'read-write'] as const

/** What the commands do; each returns its exit code. */
export interface Actions {
  run(options: RunOptions): Promise<number>
  wait(options: WaitOptions): Promise<number>
  demo(options: DemoOptions): Promise<number>
  ctl(
    command: string,
    args: readonly string[],
    options: { readonly control?: string },
  ): Promise<number>
  show(subject: ShowSubject, options: ShowOptions): Promise<number>
  capture(options: CaptureCommandOptions): Promise<number>
  upgrade(options: readonly string[], how: UpgradeOptions): Promise<number>
  doctor(options: { readonly json?: boolean }): Promise<number>
  bench(options: BenchOptions): Promise<number>
  completion(shell: Shell): Promise<number>
  version(options: { readonly json?: boolean }): Promise<number>
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

function vid(value: string): number {
  if (/^\d{1,4}$/.test(value) && Number(value) < 4096) return Number(value)
  throw new InvalidArgumentError('It must be a VID from 0 to 4095.')
}

function descriptor(value: string): number {
  if (/^\d{1,7}$/.test(value)) return Number(value)
  throw new InvalidArgumentError('It must be the number of a descriptor.')
}

function onOff(value: string): boolean {
  if (value === 'on' || value === 'off') return value === 'on'
  throw new InvalidArgumentError('It must be on or off.')
}

/** Options without a default of commander's: the config file may say otherwise. */
const CONTROL_DEFAULT =
  'default: /run/framepump/control.sock, of an ordinary user $XDG_RUNTIME_DIR/framepump/control.sock'
const control = (): Option =>
  new Option('--control <path>', `control socket of the daemon (${CONTROL_DEFAULT})`)
const repeatable = (flags: string, description: string): Option =>
  new Option(flags, description).argParser(collect).default([], 'none')
const tier = (): Option =>
  new Option('--io <tier>', 'tier of TAP input and output').choices(TIERS).default('auto')

/** `finish` is told the exit code of the command that ran; `topicHelp`: what there is help on beside commands. */
export function makeProgram(
  actions: Actions,
  finish: (exitCode: number) => void,
  version: string,
  topicHelp: (name: string) => Promise<string | undefined> = () => Promise.resolve(undefined),
): Command {
  const act =
    <T extends unknown[]>(action: (...args: T) => Promise<number>) =>
    async (...args: T): Promise<void> =>
      finish(await action(...args))

  const program = new Command('framepump')
    .description('A virtual switch in userspace: pumps Ethernet frames between TAP devices.')
    .version(version, '-V, --version', 'print the version')
    .option('--verbose', 'with --version: print what a bug report needs, as the command version')
    .helpOption('-h, --help', 'print this help')
    .helpCommand(false)
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

  program
    .command('run')
    .description('run the switch daemon in the foreground')
    .option('--config <file>', 'YAML config file (default: none)')
    .addOption(repeatable('--port <spec>', 'add a port, as type,id=ID,key=value,... (repeatable)'))
    .addOption(repeatable('--link <a,b>', 'wire two ports to each other (repeatable)'))
    .option('--control <path>', `control socket (${CONTROL_DEFAULT})`)
    .addOption(
      new Option(
        '--io <tier>',
        "tier of TAP input and output (default: the config file's, else auto)",
      ).choices(TIERS),
    )
    .option(
      '--incoming <uri>',
      'take over from a predecessor that comes to unix:PATH; defer: wait for migrate-incoming (default: open the ports at once)',
    )
    .addOption(
      new Option(
        '--backend-transfer <on|off>',
        'with --incoming: descriptors of ports come from the predecessor; off: they are opened by name (default: on, with defer off)',
      ).argParser(onOff),
    )
    .addOption(
      new Option(
        '--exclude <ids>',
        'with --incoming: ports that are opened by name all the same, separated by commas',
      )
        .argParser((value) => value.split(','))
        .default([], 'none'),
    )
    .option(
      '--user <user[:group]>',
      'run as this user, with the capabilities that ports need (default: who started it)',
    )
    .addOption(
      new Option(
        '--privileges <mode>',
        'after the start: on keeps what ports to come need, locked nothing, off everything (default: on)',
      ).choices(['on', 'locked', 'off']),
    )
    .addOption(
      new Option('--log-level <level>', 'what the log has (default: info)').choices([
        'debug',
        'info',
        'warning',
        'error',
      ]),
    )
    .addOption(
      new Option(
        '--log-format <format>',
        'how a line of the log is written (default: journald when standard error is the journal, else text)',
      ).choices(['text', 'json', 'journald']),
    )
    .addOption(
      new Option(
        '--wait-fd <number>',
        'write the line "ready" to this descriptor when it is ready, and close it (default: none)',
      ).argParser(descriptor),
    )
    .option('--check', 'check the config and exit')
    .action(act((options: RunOptions) => actions.run(options)))

  program
    .command('wait')
    .description('wait until a daemon is ready: all ports are open that can be')
    .addOption(control())
    .option('--timeout <seconds>', 'how long to wait, in seconds', positive, 30)
    .action(act((options: WaitOptions) => actions.wait(options)))

  program
    .command('demo')
    .description('make TAP devices, pump real traffic between them, show it, leave a capture')
    .option('--seconds <n>', 'how long the TCP transfer lasts, in seconds', positive, 5)
    .option('--capture <file>', 'where the capture goes', 'framepump-demo.pcapng')
    .addOption(tier())
    .option('--json', 'print the summary as JSON')
    .action(act((options: DemoOptions) => actions.demo(options)))

  program
    .command('ctl')
    .description('one command on the control socket, e.g. ctl set_link name=vm1 up=off')
    .argument('<command>', 'as query-commands lists them')
    .argument('[arguments...]', 'key=value words or one JSON object')
    .addOption(control())
    .action(
      act((command: string, args: string[], options: { control?: string }) =>
        actions.ctl(command, args, options),
      ),
    )

  program
    .command('show')
    .description('tables of a running daemon')
    .addArgument(new Argument('<subject>', 'what to show').choices(SHOW_SUBJECTS))
    .addOption(control())
    .option('--json', 'print JSON')
    .option('--port <port>', 'with macs and groups: those at the port (default: all)')
    .option(
      '--vlan <vid>',
      'with macs and groups: those in the VLAN, 0: in none (default: all)',
      vid,
    )
    .option('--mac <address>', 'with macs: this address (default: all)')
    .option('--group <address>', 'with groups: of this one (default: all)')
    .option(
      '--watch [seconds]',
      'again and again until Ctrl-C, every so many seconds (default: 1; without --watch: once)',
      positive,
    )
    .action(act((subject: ShowSubject, options: ShowOptions) => actions.show(subject, options)))

  program
    .command('capture')
    .description('live capture of a running daemon, pcapng (.pcap when the name says so)')
    .addOption(control())
    .option('-i, --interface <ports>', 'ports, separated by commas (default: all)')
    .addOption(
      new Option(
        '-d, --direction <direction>',
        'in: each frame once, where it enters the switch; out: where it leaves; both: twice or more',
      )
        .choices(['in', 'out', 'both'])
        .default('in'),
    )
    .requiredOption('-w, --write <file>', 'file, or - for standard output (required)')
    .option('-s, --snaplen <bytes>', 'bytes kept of each frame (default: all)', positive)
    .option('-c, --count <frames>', 'end after so many frames (default: at Ctrl-C)', positive)
    .option('--json', 'print the summary as JSON (to standard error)')
    .action(act((options: CaptureCommandOptions) => actions.capture(options)))

  program
    .command('doctor')
    .description('what this machine offers, and how to fix what it lacks')
    .option('--json', 'print JSON')
    .action(act((options: { json?: boolean }) => actions.doctor(options)))

  program
    .command('upgrade')
    .description(
      'replace the running daemon by a new one of the installed package, without losing a frame',
    )
    .argument(
      '[options...]',
      'after --: options of run for the new one, beside those of the old one',
    )
    .addOption(control())
    .option('--json', 'print JSON')
    .action(
      act((options: string[], { control, json }: { control?: string; json?: boolean }) =>
        actions.upgrade(options, { ...(control && { control }), json: json === true }),
      ),
    )

  program
    .command('bench')
    .description('the benchmarks of bench/ (in a checkout)')
    .option('--rows <list>', 'rows to run, separated by commas (default: all)')
    .option('--peers <list>', 'peers to run, separated by commas (default: all)')
    .option('--json <file>', 'write all figures to a file (default: none)')
    .option('--quick', 'short runs, for a look')
    .option('--check', 'each row once, with its first and its last peer: whether it works')
    .action(act((options: BenchOptions) => actions.bench(options)))

  program
    .command('completion')
    .description('print the completion script of a shell: source <(framepump completion bash)')
    .addArgument(new Argument('<shell>', 'for which shell').choices(SHELLS))
    .action(act((shell: Shell) => actions.completion(shell)))

  program
    .command('version')
    .description('print what a bug report needs: versions, tier of input and output, native part')
    .option('--json', 'print JSON')
    .action(act((options: { json?: boolean }) => actions.version(options)))

  program
    .command('help')
    .description(
      'print all commands, or the help of one, of a type of port (tap), or of a control command (netdev_add)',
    )
    .argument('[topic]', 'which one')
    .action(async (name: string | undefined) => {
      const command = name === undefined ? program : program.commands.find((c) => c.name() === name)
      if (command !== undefined) return command.help()
      const text = await topicHelp(name!)
      if (text === undefined) return program.error(`error: no help on '${name}'`)
      process.stdout.write(`${text}\n`)
    })

  return program
}
