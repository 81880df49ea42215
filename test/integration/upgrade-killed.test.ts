/** The command `upgrade`, and whom it upgrades, ended in the midst of it: one daemon is left, and nothing else. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { ControlClient } from '../../src/control/client.ts'
import type { Daemon } from '../support/lab.ts'
import { CLI, Lab, tapSpec } from '../support/lab.ts'
import type { Background } from '../support/processes.ts'
import { isListening, until } from '../support/processes.ts'
import { Daemons, execute, tapQueuesOf } from '../support/upgrades.ts'

test('an upgrade that is interrupted leaves one daemon, which runs', async () => {
  await using lab = new Lab()
  const daemon = await lab.daemon()
  await using daemons = new Daemons(daemon.control)
  const upgrade = lab.background(process.execPath, [CLI, 'upgrade', '--control', daemon.control])
  await until('the successor has been started', () => daemons.pids.length === 2)
  upgrade.child.kill('SIGINT')
  // It comes too late for one that is quicker than we look.
  const isInterrupted = (await upgrade.exited) !== 0
  if (isInterrupted) expect(upgrade.stderr).toContain('framepump: it was ')
  await until('one of them has ended', () => daemons.pids.length === 1)
  expect(daemons.pids.includes(daemon.process.child.pid!)).toBe(isInterrupted)
  const names = readdirSync(lab.directory).filter((name) => name.startsWith('control'))
  expect(names.map((name) => join(lab.directory, name))).toEqual([daemon.control])
  expect(await daemon.execute('query-status')).toMatchObject({ running: true })
  expect(await daemon.execute('query-migrate-parameters')).toMatchObject({
    local: !isInterrupted,
  })
})

/** When it is killed. */
const MOMENTS = ['started', 'listening', 'setup', 'active', 'device', 'completed'] as const

/** Resolves as soon as an upgrade has come so far. */
async function reached(
  moment: (typeof MOMENTS)[number],
  { control }: Daemon,
  daemons: Daemons,
  client: ControlClient,
): Promise<void> {
  if (moment === 'started') return until('there are two', () => daemons.pids.length === 2)
  if (moment === 'listening') return until('it listens', () => isListening(`${control}.upgrade`))
  await new Promise<void>((resolve) => {
    client.events.on('event', (name, { status }) => {
      if (name === 'MIGRATION' && status === moment) resolve()
    })
  })
}

async function daemonWithTap(lab: Lab, privileges: 'on' | 'off'): Promise<Daemon> {
  const specs = ['--port', tapSpec(0, lab.netns()), '--privileges', privileges]
  const daemon = await lab.daemon(...specs)
  await daemon.execute('migrate-set-parameters', { 'downtime-limit': 10_000 })
  return daemon
}

/** Resolves once the command has come so far. */
async function upgradeUpTo(
  moment: (typeof MOMENTS)[number],
  lab: Lab,
  daemon: Daemon,
  daemons: Daemons,
): Promise<{ client: ControlClient; upgrade: Background }> {
  const client = await ControlClient.connect(daemon.control)
  const isReached = reached(moment, daemon, daemons, client)
  const upgrade = lab.background(process.execPath, [CLI, 'upgrade', '--control', daemon.control])
  await isReached
  return { client, upgrade }
}

const leftIn = (lab: Lab): string[] =>
  readdirSync(lab.directory)
    .filter((name) => name.startsWith('control'))
    .map((name) => join(lab.directory, name))

test.for(
  MOMENTS.flatMap((moment) => (['on', 'off'] as const).map((mode) => [moment, mode] as const)),
)(
  'H11: the command is killed once it is %s, privileges %s: one daemon is left, which runs',
  async ([moment, privileges]) => {
    await using lab = new Lab()
    const daemon = await daemonWithTap(lab, privileges)
    await using daemons = new Daemons(daemon.control)
    const first = daemon.process.child.pid!
    const { client, upgrade } = await upgradeUpTo(moment, lab, daemon, daemons)
    await upgrade.stop('SIGKILL')
    // The daemon goes on with a successor of its own.
    const isOver = (): boolean => {
      const { pids } = daemons
      return pids.length === 1 && (privileges === 'on' || pids[0] !== first)
    }
    await until('one of them is left', isOver)
    if (privileges === 'on' && moment === 'started') expect(daemons.pids).toEqual([first])
    if (moment === 'completed') expect(daemons.pids).not.toEqual([first])
    const running = async (): Promise<boolean> =>
      (await execute<{ running: boolean }>(daemon.control, 'query-status')).running
    await until('it runs', running)
    expect(tapQueuesOf(daemons.pids[0])).toBe(1)
    expect(leftIn(lab)).toEqual([daemon.control])
    client.close()
  },
)

test('H11: a daemon that is killed before its successor has heard of it leaves none', async () => {
  await using lab = new Lab()
  const daemon = await lab.daemon('--privileges', 'off')
  await using daemons = new Daemons(daemon.control)
  process.kill(daemon.process.child.pid!, 'SIGUSR2')
  await until('there are two', () => daemons.pids.length === 2)
  await daemon.process.stop('SIGKILL')
  await until('nobody is left', () => daemons.pids.length === 0)
  // That of a killed one may be.
  expect(leftIn(lab).filter((path) => path !== daemon.control)).toEqual([])
  const next = await lab.successor(daemon.control)
  expect(await next.execute('query-status')).toMatchObject({ running: true })
})

test.for(['active', 'device', 'completed'] as const)(
  'H11: the daemon is killed once it is %s: the successor that the command has started runs',
  async (moment) => {
    await using lab = new Lab()
    const daemon = await daemonWithTap(lab, 'on')
    await using daemons = new Daemons(daemon.control)
    const first = daemon.process.child.pid!
    const { client, upgrade } = await upgradeUpTo(moment, lab, daemon, daemons)
    process.kill(first, 'SIGKILL')
    const code = await upgrade.exited
    // It may have heard all of it.
    if (moment !== 'completed' || code !== 0) {
      expect([code, upgrade.stderr]).toEqual([1, expect.stringContaining('its successor runs')])
    }
    await until('it has ended', () => !daemons.pids.includes(first))
    const { pids } = daemons
    expect(pids).toHaveLength(1)
    expect(await execute(daemon.control, 'query-status')).toMatchObject({ running: true })
    expect(tapQueuesOf(pids[0])).toBe(1)
    expect(leftIn(lab)).toEqual([daemon.control])
    client.close()
  },
)
