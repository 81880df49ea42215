/**
 * The unit files: what systemd says of them, and the daemon under the restrictions that they name, as
 * far as they can be had without systemd as process 1.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { CLI, compiledTool, IO, Lab, ROOT } from '../../support/lab.ts'
import { sh, until, words } from '../../support/processes.ts'

const UNITS = join(ROOT, 'config/systemd')
const names = readdirSync(UNITS)
/** systemd's own measure, 0 to 10; what is left is what a switch is for. */
const EXPOSURE_MAX_TENTHS = 26

/** The settings of a unit; the last one of a name counts. */
function settings(name: string): Map<string, string> {
  const lines = readFileSync(join(UNITS, name), 'utf8').split('\n')
  const pairs = lines.flatMap((line) => {
    const match = /^(\w+)=(.*)$/.exec(line)
    return match === null ? [] : [[match[1], match[2]] as const]
  })
  return new Map(pairs)
}

/** A copy that starts this build. */
function copy(lab: Lab, name: string): string {
  const path = join(lab.directory, name)
  const text = readFileSync(join(UNITS, name), 'utf8')
  writeFileSync(path, text.replace('ExecStart=framepump ', `ExecStart=${CLI} `))
  return path
}

test('systemd finds nothing wrong with the units', async () => {
  await using lab = new Lab()
  expect(names).toEqual(['framepump.service', 'framepump@.service'])
  for (const name of names) {
    const path = copy(lab, name)
    expect(sh('systemd-analyze', '--man=no', 'verify', path)).toBe('')
    const limit = `--threshold=${EXPOSURE_MAX_TENTHS}`
    expect(sh('systemd-analyze', 'security', '--offline=yes', limit, path)).toContain('OK')
  }
})

test('M7: with the line that mirrors with erspan need systemd allows sockets of IP besides', async () => {
  await using lab = new Lab()
  for (const name of names) {
    const path = copy(lab, name)
    const allowsIp = (): boolean =>
      sh('systemd-analyze', 'security', '--offline=yes', '--no-pager', path).includes(
        '✗ RestrictAddressFamilies=~AF_(INET|INET6)',
      )
    expect(allowsIp()).toBe(false)
    const text = readFileSync(path, 'utf8')
    const line = '\n#RestrictAddressFamilies=AF_INET AF_INET6\n'
    expect(text.split(line)).toHaveLength(2)
    writeFileSync(path, text.replace(line, line.replace('#', '')))
    expect(sh('systemd-analyze', '--man=no', 'verify', path)).toBe('')
    expect(allowsIp()).toBe(true)
  }
})

test('the template is the service, but for its names', () => {
  const [one, many] = names.map(settings)
  expect([...many.keys()].filter((key) => !one.has(key))).toEqual([])
  const different = [...one.keys()].filter((key) => one.get(key) !== many.get(key))
  expect(different).toEqual([
    'Description',
    'ExecStart',
    'User',
    'RuntimeDirectory',
    'StateDirectory',
  ])
  expect(one.get('Type')).toBe('notify')
})

describe('the daemon under the restrictions of the unit', () => {
  const unit = settings('framepump.service')
  let denied: string

  beforeAll(() => {
    const allowed = new Set<string>()
    const add = (item: string): void => {
      if (!item.startsWith('@')) return void allowed.add(item)
      for (const line of sh('systemd-analyze', 'syscall-filter', item).split('\n').slice(1)) {
        if (/^ +[@\w-]+$/.test(line)) add(line.trim())
      }
    }
    // systemd adds @default itself.
    for (const item of ['@default', ...words(unit.get('SystemCallFilter')!)]) add(item)
    const headers = sh('sh', '-c', `echo '#include <asm/unistd.h>' | cc -dM -E -`)
    const numbers = [...headers.matchAll(/^#define __NR_(\w+) (\d+)$/gm)]
    denied = numbers.flatMap(([, name, number]) => (allowed.has(name) ? [] : [number])).join(',')
    expect(denied.split(',').length).toBeGreaterThan(50)
  })

  test('TAPs, guests, captures and reloads work, and systemd hears of it', async () => {
    await using lab = new Lab()
    const netns = [lab.netns(), lab.netns()]
    const run = join(lab.directory, 'run')
    mkdirSync(run)
    sh('chown', '-R', '65534:65534', lab.directory)
    const config = join(lab.directory, 'switch.yaml')
    const port = (k: number): string =>
      `  - { id: p${k}, type: tap, ifname: x0, netns: ${netns[k]} }\n`
    const guest = `  - { id: g, type: vhost-user, path: ${run}/g.sock }\n`
    writeFileSync(config, `state-dir: ${run}/state\nports:\n${port(0)}${guest}`, { mode: 0o644 })
    const told = lab.background(compiledTool('notify-socket'), [`@framepump-unit-${process.pid}`])
    await until('the manager listens', () => told.stdout === 'ready\n')

    const caps = words(unit.get('CapabilityBoundingSet')!.replaceAll('CAP_', '').toLowerCase())
    const set = ['-all', ...caps.map((name) => `+${name}`)].join(',')
    const control = join(run, 'control.sock')
    const script = [
      'mount -o remount,ro,bind / 2>/dev/null || { mount --bind / / && mount -o remount,ro,bind /; }',
      `mount --bind ${run} ${run}`,
      `mount -o remount,rw,bind ${run}`,
      'exec "$@"',
    ].join(' && ')
    const daemon = lab.background(
      'unshare',
      [
        ...words('--mount --propagation slave sh -c'),
        script,
        'sh',
        ...words('setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs'),
        ...words(`--bounding-set ${set} --inh-caps ${set} --ambient-caps ${set}`),
        ...words(`${compiledTool('deny')} 1 ${denied}`),
        ...words(`${CLI} run --io ${IO} --config ${config} --control ${control}`),
      ],
      { NOTIFY_SOCKET: `@framepump-unit-${process.pid}`, WATCHDOG_USEC: '200000' },
    )
    await until('it is ready', () => told.stdout.includes('READY=1') || !daemon.isRunning)
    await until('it has said so', () => daemon.stderr.includes('framepump: ready'))
    const proc = `/proc/${daemon.child.pid}`
    expect(readFileSync(`${proc}/status`, 'utf8')).toMatch(/^Uid:\t65534/m)
    expect(readFileSync(`${proc}/mounts`, 'utf8')).toMatch(/^\S+ \/ \S+ ro,/m)

    writeFileSync(config, readFileSync(config, 'utf8') + port(1))
    daemon.child.kill('SIGHUP')
    await until('it was reloaded', () => daemon.stderr.includes('config: reloaded actions=1'))
    netns.forEach((name, k) => lab.address(name, `10.0.0.${k + 1}`))
    expect(lab.ping(netns[0], '10.0.0.2')).toBe(3)
    const status = sh(process.execPath, CLI, 'show', 'privileges', '--json', '--control', control)
    expect(JSON.parse(status)).toMatchObject({
      privileges: { seccomp: true, 'no-new-privs': true },
    })
    const file = join(lab.directory, 'all.pcapng')
    const order = words(`capture --control ${control} -w ${file} -c 2`)
    const capture = lab.background(process.execPath, [CLI, ...order])
    await until('it captures', () => {
      lab.ping(netns[0], '10.0.0.2', 1)
      return !capture.isRunning
    })
    expect(await capture.exited).toBe(0)
    await until('it is alive', () => told.stdout.includes('WATCHDOG=1'))
    expect(await daemon.stop()).toBe(0)
    await until('its end is told', () => told.stdout.includes('STOPPING=1'))
    expect(daemon.stderr).not.toMatch(/because=".*(forbidden|not permitted)/)
  })
})
