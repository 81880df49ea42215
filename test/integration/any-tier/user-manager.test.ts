/** The daemon as a service of a user's own manager, `systemd --user`, which runs without a bus. */
import { chownSync, mkdirSync } from 'node:fs'
import { expect, test } from 'vitest'
import { Lab } from '../../support/lab.ts'
import { until } from '../../support/processes.ts'
import type { Ran } from '../../support/real-systemd.ts'
import { RealSystemd } from '../../support/real-systemd.ts'

const UID = 65534
const HOME = '/home/user'
const RUNTIME = `/run/user/${UID}`
const CONTROL = `${RUNTIME}/framepump/control.sock`
/** What logind has a unit of the system for. */
const MANAGER = `[Service]
User=${UID}
Type=notify
ExecStart=/lib/systemd/systemd --user
Environment=HOME=${HOME} XDG_RUNTIME_DIR=${RUNTIME}
Slice=user.slice
KillMode=mixed
Delegate=yes
`
const SERVICE = `[Service]
Type=notify
ExecStart=framepump run --config ${HOME}/framepump.yaml --control ${CONTROL}
Restart=on-failure
RestartSec=200ms
FileDescriptorStoreMax=64
RuntimeDirectory=framepump
RuntimeDirectoryPreserve=restart
`
/** The command as a part of the manager's. */
const UPGRADE = `[Service]
Type=oneshot
ExecStart=framepump upgrade --control ${CONTROL}
`
const CONFIG = `ports: [{ id: g, type: vhost-user, path: ${RUNTIME}/framepump/g.sock }]\n`

class UserManager implements AsyncDisposable {
  readonly machine: RealSystemd

  private constructor(machine: RealSystemd) {
    this.machine = machine
  }

  static async start(lab: Lab, config: string): Promise<UserManager> {
    const machine = await RealSystemd.boot(lab, lab.netns())
    const units = `${HOME}/.config/systemd/user`
    for (const path of [units, RUNTIME]) mkdirSync(machine.path(path), { recursive: true })
    chownSync(machine.path(RUNTIME), UID, UID)
    machine.write(`${HOME}/framepump.yaml`, config)
    machine.write(`${units}/framepump.service`, SERVICE)
    machine.write(`${units}/upgrade.service`, UPGRADE)
    machine.write('/etc/systemd/system/user-manager.service', MANAGER)
    await machine.sh('systemctl', 'daemon-reload')
    await machine.sh('systemctl', 'start', 'user-manager')
    const user = new UserManager(machine)
    await user.sh('systemctl', '--user', 'start', 'framepump')
    return user
  }

  /** Runs a program as the user, who is logged in otherwise than by the manager. */
  run(...command: string[]): Promise<Ran> {
    const as = ['setpriv', '--reuid', `${UID}`, '--regid', `${UID}`, '--clear-groups']
    const env = ['env', `HOME=${HOME}`, `XDG_RUNTIME_DIR=${RUNTIME}`]
    return this.machine.run(...as, ...env, ...command)
  }

  async sh(...command: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(...command)
    if (code === 0) return stdout
    throw new Error(`${command.join(' ')}: ${code} ${stderr}${stdout}`)
  }

  /** Of the service. */
  async show(name: string): Promise<string> {
    const text = await this.sh('systemctl', '--user', 'show', 'framepump', '--property', name)
    return text.trimEnd().slice(name.length + 1)
  }

  async status(): Promise<Record<string, unknown>> {
    const text = await this.sh('framepump', 'ctl', '--control', CONTROL, 'query-status')
    return JSON.parse(text) as Record<string, unknown>
  }

  /** The daemon with that number is not the service any more, and another one is, which answers. */
  async replaced(pid: string): Promise<void> {
    await until('another one is the service', async () => {
      const now = await this.show('MainPID')
      return now !== pid && now !== '0' && (await this.show('ActiveState')) === 'active'
    })
    expect(await this.status()).toMatchObject({ running: true })
    await until('it has stored its sockets', async () => {
      return (await this.show('NFileDescriptorStore')) === '2'
    })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.machine[Symbol.asyncDispose]()
  }
}

test.for([['on'], ['off']] as const)(
  'a user’s service is killed, replaced and stopped, privileges %s',
  async ([mode]) => {
    await using lab = new Lab()
    await using user = await UserManager.start(lab, `privileges: { mode: ${mode} }\n${CONFIG}`)
    let pid = await user.show('MainPID')
    await user.sh('systemctl', '--user', 'kill', '--signal=KILL', 'framepump')
    await user.replaced(pid)
    for (let round = 0; round < 2; round++) {
      pid = await user.show('MainPID')
      await user.sh('systemctl', '--user', 'start', 'upgrade')
      await user.replaced(pid)
    }
    pid = await user.show('MainPID')
    await user.sh('systemctl', '--user', 'kill', '--signal=KILL', 'framepump')
    await user.replaced(pid)
    expect(await user.show('NRestarts')).toBe('2')
    await user.sh('systemctl', '--user', 'stop', 'framepump')
    expect([await user.show('ActiveState'), await user.show('Result')]).toEqual([
      'inactive',
      'success',
    ])
    expect((await user.run('pgrep', '--full', 'framepump run')).stdout).toBe('')
  },
)

test('a successor that systemd would not take for the service is refused, and the daemon goes on', async () => {
  await using lab = new Lab()
  await using user = await UserManager.start(lab, CONFIG)
  const pid = await user.show('MainPID')
  const { code, stderr } = await user.run('framepump', 'upgrade', '--control', CONTROL)
  expect(code).toBe(1)
  expect(stderr).toContain("cannot be brought into the service's cgroup")
  expect(stderr).toContain('systemd-run --user')
  expect(await user.status()).toMatchObject({ running: true })
  expect([await user.show('MainPID'), await user.show('ActiveState')]).toEqual([pid, 'active'])
  // The number of the one that was started is nobody's any more.
  await until('only one is left', async () => {
    const { stdout } = await user.run('pgrep', '--full', 'framepump run')
    return stdout.trim() === pid
  })
  // Root moves it there, and cannot make it the manager's child: how it ends is not seen.
  const said = await user.machine.sh('framepump', 'upgrade', '--control', CONTROL)
  expect(said).toMatch(/^not inherited: .*parent$/m)
  expect(said).toContain('its manager does not see how it ends')
  await user.replaced(pid)
  await user.machine.sh('kill', '-KILL', await user.show('MainPID'))
  await until('it has ended', async () => (await user.show('ActiveState')) === 'inactive')
  expect([await user.show('Result'), await user.show('NRestarts')]).toEqual(['success', '0'])
})
