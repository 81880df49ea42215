/**
 * framepump completion: a script for the completion of a shell, made from the table of commands. Ids of
 * ports come from the daemon that the line names.
 */
import type { Argument, Command, Option } from 'commander'

export const SHELLS = ['bash', 'zsh'] as const
export type Shell = (typeof SHELLS)[number]

/** What a value is: one of some words, a file, the id of a port, or the user's own. */
type Value =
  | { readonly kind: 'words'; readonly words: readonly string[] }
  | { readonly kind: 'file' | 'port' | 'other' }

/** Words beside the table's. */
export interface Offered {
  /** What `ctl` takes. */
  readonly controlCommands: readonly string[]
  /** What `help` tells of beside commands. */
  readonly topics: readonly string[]
}

export function completionScript(program: Command, shell: Shell, offered: Offered): string {
  return shell === 'bash' ? bash(program, offered) : zsh(program, offered)
}

function valueOf(of: Option | Argument, name: string, offered: Offered): Value {
  const choices = of.argChoices
  if (choices !== undefined) return { kind: 'words', words: choices }
  const placeholder = /<([^>]+)>|\[([^\]]+)\]/.exec(name)
  const word = placeholder?.[1] ?? placeholder?.[2]
  if (word === 'file' || word === 'path') return { kind: 'file' }
  if (word === 'ports') return { kind: 'port' }
  if (word === 'command') return { kind: 'words', words: offered.controlCommands }
  return { kind: 'other' }
}

function optionsOf(command: Command): readonly Option[] {
  return command.createHelp().visibleOptions(command)
}

/** Of the command's first argument: the words of `help` are the commands themselves, and topics. */
function argumentOf(program: Command, command: Command, offered: Offered): Value {
  const [argument] = command.registeredArguments
  if (argument === undefined) return { kind: 'other' }
  if (command.name() === 'help') {
    const commands = program.commands.map((one) => one.name())
    return { kind: 'words', words: [...commands, ...offered.topics] }
  }
  return valueOf(argument, `<${argument.name()}>`, offered)
}

/** Prints the ids of ports, one a line; `$1` and `$2` are `--control PATH`, if the line has them. */
const PORT_IDS = `framepump ctl query-ports "$@" 2>/dev/null | sed -n 's/^    "id": "\\(.*\\)",*$/\\1/p'`

function bash(program: Command, offered: Offered): string {
  const values: string[] = []
  const words: string[] = []
  for (const command of program.commands) {
    const name = command.name()
    for (const option of optionsOf(command)) {
      if (!option.required && !option.optional) continue
      const flags = [option.short, option.long].filter(
        (flag) => flag !== undefined && flag !== null,
      )
      const patterns = flags.map((flag) => `${name}:${flag}`).join('|')
      const value = valueOf(option, option.flags, offered)
      // One whose value may be left out goes on with the words of the command.
      if (option.required) values.push(`    ${patterns}) ${bashValue(value)} return ;;`)
    }
    const argument = argumentOf(program, command, offered)
    const flags = optionsOf(command).flatMap(({ long }) => (long == null ? [] : [long]))
    const own = argument.kind === 'words' ? argument.words : []
    words.push(`    ${name}) words='${[...flags, ...own].join(' ')}' ;;`)
  }
  const first = [
    ...program.commands.map((command) => command.name()),
    ...optionsOf(program).flatMap(({ long }) => (long == null ? [] : [long])),
  ]
  return `# Completion of framepump for bash: source it, or write it to
# /etc/bash_completion.d/framepump. Made by: framepump completion bash
_framepump_ports() {
  ${PORT_IDS}
}
_framepump() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} command= words= i
  local -a control=()
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    if [[ \${COMP_WORDS[i]} == --control ]]; then control=(--control "\${COMP_WORDS[i+1]}"); fi
    if [[ -z $command && \${COMP_WORDS[i]} != -* ]]; then command=\${COMP_WORDS[i]}; fi
  done
  case $command:$prev in
${values.join('\n')}
  esac
  case $command in
    '') words='${first.join(' ')}' ;;
${words.join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -F _framepump framepump
`
}

function bashValue(value: Value): string {
  switch (value.kind) {
    case 'words':
      return `COMPREPLY=($(compgen -W '${value.words.join(' ')}' -- "$cur"));`
    case 'file':
      return 'compopt -o default;'
    case 'port':
      return 'COMPREPLY=($(compgen -W "$(_framepump_ports "${control[@]}")" -- "$cur"));'
    case 'other':
      return ''
  }
}

function zsh(program: Command, offered: Offered): string {
  const described = program.commands.map(
    (command) => `        ${quote(`${command.name()}:${command.description()}`)}`,
  )
  const cases = program.commands.map((command) => {
    const argument = argumentOf(program, command, offered)
    const specs = optionsOf(command).map((option) => zshOption(option, offered))
    const [first] = command.registeredArguments
    if (first !== undefined) specs.push(quote(`1:${first.name()}:${zshValue(argument)}`))
    return `        ${command.name()}) _arguments ${specs.join(' ')} ;;`
  })
  const own = optionsOf(program).map((option) => zshOption(option, offered))
  return `#compdef framepump
# Completion of framepump for zsh: write it to _framepump in a directory of $fpath, or source it.
# Made by: framepump completion zsh
_framepump_ports() {
  local -a control ids
  local at=\${words[(I)--control]}
  (( at > 0 )) && control=(--control "\${words[at+1]}")
  set -- "\${control[@]}"
  ids=(\${(f)"$(${PORT_IDS})"})
  _values -s , port $ids
}
_framepump() {
  local curcontext=$curcontext state line
  typeset -A opt_args
  _arguments -C ${own.join(' ')} '1:command:->command' '*::argument:->rest'
  case $state in
    command)
      local -a commands
      commands=(
${described.join('\n')}
      )
      _describe command commands
      ;;
    rest)
      case $words[1] in
${cases.join('\n')}
      esac
      ;;
  esac
}
if [[ $funcstack[1] == _framepump ]]; then _framepump "$@"; else compdef _framepump framepump; fi
`
}

function zshOption(option: Option, offered: Offered): string {
  const text = option.description.replaceAll(/[[\]\\]/g, '\\$&')
  const value = valueOf(option, option.flags, offered)
  const hasValue = option.required || option.optional
  // A double colon: it may be left out.
  const colons = option.optional ? '::' : ':'
  const end = hasValue ? `${colons}${option.attributeName()}:${zshValue(value)}` : ''
  const flags = [option.short, option.long].filter((flag) => flag !== undefined && flag !== null)
  return flags.map((flag) => quote(`*${flag}[${text}]${end}`)).join(' ')
}

function zshValue(value: Value): string {
  switch (value.kind) {
    case 'words':
      return `(${value.words.join(' ')})`
    case 'file':
      return '_files'
    case 'port':
      return '_framepump_ports'
    case 'other':
      return ' '
  }
}

function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`
}
