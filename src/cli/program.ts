/** framepump: argv -> one call into the library. One file per command; commands.ts has what each takes. */
import { CommanderError } from 'commander'
import { COMMANDS } from '../control/commands.ts'
import { shimFailure } from '../native/shim.ts'
import { bench } from './bench.ts'
import { capture } from './capture.ts'
import { makeProgram } from './commands.ts'
import { EXIT_BAD_USAGE, packageVersion, reportError } from './common.ts'
import type { Shell } from './completion.ts'
import { completionScript } from './completion.ts'
import { ctl } from './ctl.ts'
import { demo } from './demo.ts'
import { doctor } from './doctor.ts'
import { blameLimit } from './open-files.ts'
import { outputFailure, watchOutput } from './output.ts'
import { run } from './run.ts'
import { show } from './show.ts'
import { topicHelp, TOPICS } from './topics.ts'
import { upgrade } from './upgrade.ts'
import { version } from './version.ts'
import { wait } from './wait.ts'

/** Of the command that ran. */
let exitCode = 0

const completion = async (shell: Shell): Promise<number> => {
  const controlCommands = COMMANDS.map(({ name }) => name)
  process.stdout.write(completionScript(program, shell, { controlCommands, topics: TOPICS }))
  return 0
}
const actions = { run, wait, demo, ctl, show, capture, doctor, upgrade, bench, completion, version }
const program = makeProgram(
  actions,
  (code) => (exitCode = code),
  packageVersion(),
  (name) => topicHelp(name, program),
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
