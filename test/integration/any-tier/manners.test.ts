/** How the commands behave on a terminal and in a pipe: watch, version, help, the demo's end. */
import { spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { installFor } from '../../support/installed.ts'
import { CLI, frameHex, IO, Lab, tapSpec } from '../../support/lab.ts'
import type { Background } from '../../support/processes.ts'
import { sh, until, words } from '../../support/processes.ts'

const NODE = process.execPath
const ESC = '\u001b'
/** "At once", on a machine that does something else as well: without being told it would take ten minutes. */
const AT_ONCE_MS = 30_000
const LONG_S = 600
/** A moment may be over before the test has noticed it. */
const TRIES = 5

/** Processes with this word in their command lines. */
function living(word: string): string[] {
  const commandOf = (pid: string): string => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
    } catch {
      // It has ended.
      return ''
    }
  }
  return readdirSync('/proc').filter((pid) => /^\d+$/.test(pid) && commandOf(pid).includes(word))
}

/** Milliseconds until it has ended. */
async function ending(run: Background, act: () => unknown): Promise<number> {
  const start = performance.now()
  act()
  await run.exited
  return performance.now() - start
}

describe('show', () => {
  test('ports: administrative state, carrier, MTU and drops', async () => {
    await using lab = new Lab()
    const netns = [lab.netns(), lab.netns()]
    const daemon = await lab.daemon(
      ...words(`--port ${tapSpec(0, netns[0], 'up=on,mtu=1400')}`),
      ...words(`--port ${tapSpec(1, netns[1], 'up=on')} --port pcap,id=r,record=/dev/null`),
    )
    const frame = (n: number): string => frameHex('ff:ff:ff:ff:ff:ff', '01:00:00:00:00:01', n)
    // A group is no sender.
    await lab.send(netns[0], [1, 2, 3].map(frame))
    await until('they are counted', async () => (await daemon.stats('p0'))['rx_drop_source'] === 3)
    sh('ip', '-n', netns[1], 'link', 'set', 'x0', 'mtu', '9000', 'down')
    await daemon.execute('set_link', { name: 'p0', up: false })
    const rows = (): string[][] =>
      sh(NODE, CLI, 'show', 'ports', '--control', daemon.control)
        .trimEnd()
        .split('\n')
        .map((line) => line.split(/ {2,}/))
    const column = (name: string): string[] => {
      const [head, ...ports] = rows()
      return ports.map((cells) => cells[head.indexOf(name)])
    }
    await until('the interface is told', () => column('MTU')[1] === '9000')
    expect(column('ADMIN')).toEqual(['down', 'up', 'up'])
    expect(column('CARRIER')[1]).toBe('down')
    expect(column('CARRIER')[2]).toBe('-')
    expect(column('MTU')).toEqual(['1400', '9000', '-'])
    expect(await daemon.port('p1')).toMatchObject({ 'device-mtu': 9000 })
    expect(Number(column('RX_DROP')[0])).toBeGreaterThanOrEqual(3)
    expect(column('TX_DROP')[2]).toBe('0')
  })

  test('--watch: one table after another in a pipe, and it ends with its reader', async () => {
    await using lab = new Lab()
    const daemon = await lab.daemon()
    const order = [CLI, 'show', 'links', '--watch', '1', '--control', daemon.control]
    const run = lab.background(NODE, order)
    await until('two tables', () => run.stdout.startsWith('A  B\n\nA  B\n'))
    expect(run.stdout).not.toContain(ESC)
    const time = await ending(run, () => run.child.stdout!.destroy())
    expect(time).toBeLessThan(AT_ONCE_MS)
    expect({ code: await run.exited, stderr: run.stderr }).toEqual({ code: 0, stderr: '' })
    const json = lab.background(NODE, [...order, '--json'])
    await until('two of them', () => json.stdout.startsWith('[]\n\n[]\n'))
    // A daemon that goes is told.
    await daemon.process.stop()
    expect(await json.exited).toBe(3)
  })

  test('--watch: in place on a terminal, until Ctrl-C', async () => {
    await using lab = new Lab()
    const daemon = await lab.daemon('--port', 'pcap,id=r,record=/dev/null')
    const run = lab.terminal(`${NODE} ${CLI} show ports --watch --control ${daemon.control}`)
    await until('three of them', () => run.stdout.split(`${ESC}[H`).length >= 4)
    expect(run.stdout).toMatch(/framepump show ports, every 1 s, \d\d:\d\d:\d\d/)
    const time = await ending(run, () => run.child.stdin!.write('\u0003'))
    expect(time).toBeLessThan(AT_ONCE_MS)
  })

  test('--watch: no interval but whole seconds', async () => {
    await using lab = new Lab()
    const run = lab.background(NODE, [CLI, 'show', 'ports', '--watch', '0'])
    expect(await run.exited).toBe(2)
    expect(run.stderr).toContain('It must be a whole number above 0.')
  })
})

describe('version and help', () => {
  const version = (JSON.parse(readFileSync('package.json', 'utf8')) as { version: string }).version

  test('--version is the version, --version --verbose what a bug report needs', () => {
    expect(sh(NODE, CLI, '--version')).toBe(`${version}\n`)
    const texts = [['--version', '--verbose'], ['--verbose', '-V'], ['version']].map((order) =>
      sh(NODE, CLI, ...order),
    )
    for (const text of texts) {
      expect(text).toMatch(new RegExp(`^framepump +${version}$`, 'm'))
      expect(text).toMatch(new RegExp(`^node +${process.version} \\(V8 `, 'm'))
      expect(text).toMatch(/^kernel +Linux \S+ \S+$/m)
      expect(text).toMatch(/^io +(io_uring-multishot|read-write) \(.+\)$/m)
      expect(text).toMatch(/^shim +\/.*framepump.*\.node$/m)
    }
    expect(JSON.parse(sh(NODE, CLI, 'version', '--json'))).toMatchObject({ framepump: version })
  })

  test('version works without the native part, and says so', async () => {
    await using lab = new Lab()
    const env = { FRAMEPUMP_SHIM: '/nowhere/framepump.node' }
    const run = lab.background(NODE, [CLI, 'version'], env)
    expect(await run.exited).toBe(0)
    expect(run.stdout).toMatch(/^shim +none: /m)
  })

  test('help lists the commands, and tells of each; another word is an error', async () => {
    await using lab = new Lab()
    const list = sh(NODE, CLI, 'help')
    expect(list).toMatch(/^ {2}run \[options\]/m)
    expect(sh(NODE, CLI, 'help', 'wait')).toBe(sh(NODE, CLI, 'wait', '--help'))
    const run = lab.background(NODE, [CLI, 'help', 'wiat'])
    expect(await run.exited).toBe(2)
    expect(run.stderr).toBe("framepump: no help on 'wiat' [BAD_ARGUMENT]\n")
  })
})

describe('the demo', () => {
  const seconds = (n: number): string => `demo --io ${IO} --seconds ${n}`

  test('ends with why the capture has another number, and commands that work', async () => {
    await using lab = new Lab()
    const file = join(lab.directory, 'a demo.pcapng')
    const output = sh(NODE, CLI, ...words(seconds(1)), '--capture', file)
    const [, captured] = /\((\d+) frames, 0 dropped\)/.exec(output)!
    const [, forwarded] = /frames forwarded .*\((\d+)\)/.exec(output)!
    const difference = Number(forwarded) - Number(captured)
    const said =
      difference > 0 ? `${difference} fewer` : difference < 0 ? `${-difference} more` : 'as many'
    expect(output).toContain(`                  ${said}`)
    const next = output.slice(output.indexOf('What next:')).trimEnd().split('\n').slice(1)
    expect(next[0]).toBe(`  wireshark '${file}'`)
    const run = next.find((line) => line.includes(' run --port '))!
    // As it is printed, in a namespace of its own.
    const control = lab.controlPath()
    const netns = lab.netns()
    const script = `cd ${process.cwd()} && exec ${run.trim()} --control ${control}`
    const daemon = lab.start(netns, 'sh', '-c', script)
    await until('it is ready', () => daemon.stderr.includes('ready (control') || !daemon.isRunning)
    expect(lab.exec(netns, 'ip', '-br', 'link')).toMatch(/fp0[^]*fp1/)
    expect(await daemon.stop()).toBe(0)
  })

  test('on a terminal the table lives until the summary', async () => {
    await using lab = new Lab()
    const file = join(lab.directory, 'd.pcapng')
    const run = lab.terminal(`${NODE} ${CLI} ${seconds(1)} --capture ${file}`)
    expect(await run.exited).toBe(0)
    const text = run.stdout.replaceAll('\r', '')
    const end = text.indexOf('frames forwarded')
    // Drawn also after the last thing that was said, with the port that came last, and as it then was.
    const last = text.lastIndexOf('PORT  RX FRAMES', end)
    expect(last).toBeGreaterThan(text.lastIndexOf('answered on a link', end))
    const table = text.slice(last, end)
    expect(
      table
        .trimEnd()
        .split('\n')
        .map((line) => line.split(' ')[0]),
    ).toEqual(['PORT', 'a', 'b', 'u', 'v'])
    expect(text.slice(end)).not.toContain(ESC)
  })

  const moments = [
    ['while it begins', 'switch: started'],
    ['during the pings', 'ping: 5 from a to b'],
    ['during the transfer', 'RX FRAMES'],
    ['during the pings of the device', 'answered through the switch'],
  ] as const

  test.each(moments)('Ctrl-C %s ends it at once, and nothing stays', async (_, mark) => {
    await using lab = new Lab()
    const file = join(lab.directory, 'd.pcapng')
    const isNearEnd = mark === 'answered through the switch'
    const command = `${NODE} ${CLI} ${seconds(isNearEnd ? 1 : LONG_S)} --capture ${file}`
    for (let tries = 1; ; tries++) {
      const run = lab.terminal(command)
      await until('the moment has come', () => run.stdout.includes(mark) || !run.isRunning)
      const endedMs = await ending(run, () => run.child.stdin!.write('\u0003'))
      if (isNearEnd && tries < TRIES && (await run.exited) === 0) continue
      expect(endedMs).toBeLessThan(AT_ONCE_MS)
      expect(run.stdout).toContain('framepump: the demo was interrupted')
      expect(await run.exited).toBe(1)
      break
    }
    await until('nothing stays', () => living(file).length === 0)
  })

  test.each(['root', 'an ordinary user'])('a terminal that is lost ends it, of %s', async (who) => {
    await using lab = new Lab()
    const isRoot = who === 'root'
    const cli = isRoot ? CLI : installFor(lab)
    const as = isRoot ? '' : 'setpriv --reuid 65534 --regid 65534 --clear-groups '
    const file = join(lab.directory, 'd.pcapng')
    const run = lab.terminal(`${as}${NODE} ${cli} ${seconds(LONG_S)} --capture ${file}`)
    await until('it runs', () => run.stdout.includes('RX FRAMES'))
    expect(living(file).length).toBeGreaterThan(0)
    // The terminal goes with who holds its other side.
    run.child.kill('SIGKILL')
    await until('everything has ended', () => living(file).length === 0, AT_ONCE_MS)
  })

  test('a reader that goes ends it', async () => {
    await using lab = new Lab()
    const file = join(lab.directory, 'd.pcapng')
    const child = spawn(NODE, [CLI, ...words(seconds(LONG_S)), '--capture', file], {
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    let text = ''
    child.stdout.on('data', (data: Buffer) => (text += data.toString()))
    await until('it runs', () => text.includes('  a: rx'))
    const start = performance.now()
    child.stdout.destroy()
    expect(await new Promise((resolve) => child.once('exit', resolve))).toBe(0)
    expect(performance.now() - start).toBeLessThan(AT_ONCE_MS)
  })
})
