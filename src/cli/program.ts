/** framepump: argv -> one call into the library. One file per command; commands.ts has what each takes. */
import { CommanderError } from 'commander'
import { shimFailure } from '../native/shim.ts'
import { makeProgram } from './commands.ts'
import { EXIT_BAD_USAGE, packageVersion, reportError } from './common.ts'
import { completionScript } from './completion.ts'
import { blameLimit } from './open-files.ts'
import { outputFailure, watchOutput } from './output.ts'

/** Of the command that ran. */
let exitCode = 0

async function load<T>(module: Promise<T>): Promise<T> {
  try {
    return await module
  } catch (error) {
    blameLimit()
    throw error
  }
}

/** Of them only what runs is loaded: all of it takes three times as long as a short command does. */
const program = makeProgram(
  {
    run: async (...given) => (await load(import('./run.ts'))).run(...given),
    wait: async (...given) => (await load(import('./wait.ts'))).wait(...given),
    demo: async (...given) => (await load(import('./demo.ts'))).demo(...given),
    ctl: async (...given) => (await load(import('./ctl.ts'))).ctl(...given),
    show: async (...given) => (await load(import('./show.ts'))).show(...given),
    capture: async (...given) => (await load(import('./capture.ts'))).capture(...given),
    doctor: async (...given) => (await load(import('./doctor.ts'))).doctor(...given),
    upgrade: async (...given) => (await load(import('./upgrade.ts'))).upgrade(...given),
    bench: async (...given) => (await load(import('./bench.ts'))).bench(...given),
    completion: async (shell) => {
      const { COMMANDS } = await load(import('../control/commands.ts'))
      const { TOPICS } = await load(import('./topics.ts'))
      const controlCommands = COMMANDS.map(({ name }) => name)
      process.stdout.write(completionScript(program, shell, { controlCommands, topics: TOPICS }))
      return 0
    },
    version: async (...given) => (await load(import('./version.ts'))).version(...given),
  },
  (code) => (exitCode = code),
  packageVersion(),
  async (name) => (await load(import('./topics.ts'))).topicHelp(name, program),
)
/** These work without the shim. */
const WITHOUT_SHIM = ['doctor', 'help', 'completion', 'version']

program.hook('preAction', (_, command) => {
  if (shimFailure === undefined || WITHOUT_SHIM.includes(command.name())) return
  blameLimit()
  throw shimFailure
})

/** `--version --verbose`, in any order, is a command in the shape of options. */
const given = process.argv.slice(2)
const isVerboseVersion =
  given.includes('--verbose') && given.some((word) => word === '--version' || word === '-V')

watchOutput()
try {
  await program.parseAsync(isVerboseVersion ? ['version'] : given, { from: 'user' })
} catch (error) {
  // commander has said what is wrong; help and version are no errors.
  if (error instanceof CommanderError) exitCode = error.exitCode === 0 ? 0 : EXIT_BAD_USAGE
  else exitCode = reportError(error)
}
process.exitCode = exitCode
// What was written is told to have failed only now, if it has.
setImmediate(() => (process.exitCode ||= outputFailure()))
