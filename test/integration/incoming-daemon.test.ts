/** Two daemons, one of which takes over: sockets, commands of the newcomer, and the whole of it. */
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { ControlClient } from '../../src/control/client.ts'
import type { Daemon as DaemonClass, DaemonOptions } from '../../src/daemon/daemon.ts'
import { FrontEnd } from '../support/front-end.ts'
import type { Daemon } from '../support/lab.ts'
import { CLI, Lab, tapSpec } from '../support/lab.ts'
import { Background, until } from '../support/processes.ts'
import { frame } from '../support/sim.ts'
import { makeTap, tunDescriptors, tunState } from '../support/tun.ts'

/** Runs the CLI to its end. */
async function cli(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const child = new Background(process.execPath, [CLI, ...args])
  const code = await child.exited
  return { code, stdout: child.stdout, stderr: child.stderr }
}

const incoming = (lab: Lab, control: string, ...args: string[]): Promise<Daemon> =>
  lab.incoming(control, join(lab.directory, 'trace'), ...args)

async function statesOf(daemon: Daemon): Promise<string[]> {
  const ports = await daemon.execute<{ id: string; state: string }[]>('query-ports')
  return ports.map(({ id, state }) => `${id} ${state}`)
}

test('a vhost-user path on which another daemon listens is postponed, and bound at the signal', async () => {
  await using lab = new Lab()
  const [owned, free] = [join(lab.directory, 'owned.sock'), join(lab.directory, 'free.sock')]
  const spec = (id: string, path: string): string[] => [
    '--port',
    `vhost-user,id=${id},path=${path}`,
  ]
  const owner = await lab.daemon(...spec('g', owned))
  const daemon = await incoming(
    lab,
    owner.control,
    ...spec('g', owned),
    ...spec('f', free),
    ...spec('c', `${free}2,server=off`),
  )
  expect(await daemon.port('g')).toMatchObject({
    state: 'postponed',
    info: `another process listens on ${owned}`,
    path: owned,
  })
  expect(await daemon.port('f')).toMatchObject({
    state: 'disconnected',
    'not-postponed': `nobody listens on ${free}`,
  })
  expect(await daemon.port('c')).toMatchObject({ state: 'postponed' })
  // Its owner serves it as before.
  const guest = FrontEnd.connect(owned)
  try {
    await guest.start()
    expect(await owner.port('g')).toMatchObject({ state: 'connected' })
    await expect(daemon.execute('migrate-incoming')).rejects.toThrow(
      `vhost-user g: another process (pid ${owner.process.child.pid}) listens on ${owned}`,
    )
    expect(await statesOf(daemon)).toEqual(['g postponed', 'f disconnected', 'c postponed'])
    expect(await owner.port('g')).toMatchObject({ state: 'connected' })
  } finally {
    guest.close()
  }
  await owner.process.stop()
  await daemon.execute('migrate-incoming')
  expect(await statesOf(daemon)).toEqual(['g disconnected', 'f disconnected', 'c disconnected'])
  const next = FrontEnd.connect(owned)
  try {
    await next.start()
    next.transmit(frame(255, 1))
    await until('it is connected', async () => (await daemon.port('g'))['state'] === 'connected')
    expect(await daemon.stats('g')).toMatchObject({ rx_frames: 0 })
    await daemon.execute('cont')
    await until('it is served', async () => (await daemon.stats('g'))['rx_frames'] === 1)
  } finally {
    next.close()
  }
})

test('the control path is taken over at cont, also from an owner that still lives', async () => {
  await using lab = new Lab()
  const owner = await lab.daemon()
  const path = owner.control
  const daemon = await incoming(lab, path)
  // The ready line names it.
  expect(daemon.control).toBe(`${path}.incoming`)
  const second = await cli('run', '--control', path, '--incoming', 'defer')
  expect(second.code).toBe(1)
  expect(second.stderr).toMatch(
    /^framepump: control socket .*\.incoming is in use by another framepump/m,
  )
  await daemon.execute('migrate-incoming')
  expect(existsSync(`${path}.incoming`)).toBe(true)
  const ctl = await cli('ctl', '--control', `${path}.incoming`, 'cont')
  expect(ctl.code).toBe(0)
  expect(existsSync(`${path}.incoming`)).toBe(false)
  // Sessions go on, new ones reach it at the path, and the owner's end does not take that away.
  expect(await daemon.execute('query-status')).toMatchObject({ status: 'running' })
  await owner.process.stop()
  const status = await cli('ctl', '--control', path, 'query-status')
  expect(JSON.parse(status.stdout)).toMatchObject({ status: 'running' })
  await daemon.process.stop()
  expect(existsSync(path)).toBe(false)
})

test('with nobody on the control path, the newcomer has it at once', async () => {
  await using lab = new Lab()
  const path = lab.controlPath()
  const daemon = await incoming(lab, path)
  expect(daemon.control).toBe(path)
  await daemon.execute('migrate-incoming')
  await daemon.execute('cont')
  expect(existsSync(path)).toBe(true)
})

test('what cannot be done before the signal is refused, what has no meaning does nothing', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  makeTap(netns, 4)
  const file = join(lab.directory, 'switch.yaml')
  const port = (id: string, ifname: string): string =>
    `  - { id: ${id}, type: tap, ifname: ${ifname}, netns: ${netns}, script: no, downscript: no }\n`
  writeFileSync(file, `ports:\n${port('p0', 'x0').replace('type', 'queues: 4, type')}`)
  const daemon = await incoming(lab, lab.controlPath(), '--config', file)
  const events: string[] = []
  daemon.client.events.on('event', (name) => events.push(name))

  await expect(daemon.execute('cont')).rejects.toThrow(
    'ports are still postponed until the pre-incoming point',
  )
  await expect(daemon.execute('migrate-incoming', { uri: 'tcp:x:1' })).rejects.toThrow(
    'tcp:x:1: descriptors pass by a UNIX socket only',
  )
  await daemon.execute('stop')
  expect(await daemon.execute('query-status')).toMatchObject({ status: 'inmigrate' })
  expect(events).toEqual([])
  // The config can change meanwhile.
  writeFileSync(file, `ports:\n${port('p1', 'x1')}${port('p2', 'x2')}`)
  expect(await daemon.execute('config-reload')).toMatchObject({
    actions: ['remove p0', 'add p1', 'add p2'],
  })
  expect(await statesOf(daemon)).toEqual(['p1 postponed', 'p2 postponed'])
  expect(tunState(netns, 'x1')).toBeNull()
  const table = await cli('show', 'ports', '--control', daemon.control)
  expect(table.stdout).toContain('postponed')
  // Its end is the end of nothing else.
  await daemon.execute('quit')
  expect(await daemon.process.exited).toBe(0)
  expect(existsSync(daemon.control)).toBe(false)
  expect(tunState(netns)).toMatchObject({ held: 0 })

  const wrong = await cli('run', '--incoming', 'tcp:1', '--control', lab.controlPath())
  expect(wrong).toMatchObject({ code: 2 })
  expect(wrong.stderr).toMatch(
    /^framepump: --incoming tcp:1: descriptors pass by a UNIX socket only/,
  )
  for (const option of ['--exclude=a', '--backend-transfer=off']) {
    const lone = await cli('run', option, '--control', lab.controlPath())
    expect(lone).toMatchObject({ code: 2 })
    expect(lone.stderr).toMatch(/^framepump: --[a-z-]+ is of use with --incoming only/)
  }
})

test('E5: why a port is not postponed is shown and logged', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  const daemon = await incoming(lab, lab.controlPath(), '--port', tapSpec(0, netns))
  const reason = 'script not given: add script=no,downscript=no'
  expect(await daemon.port('p0')).toMatchObject({ state: 'open', 'not-postponed': reason })
  expect(daemon.process.stderr).toContain(`because="${reason}"`)
  const json = await cli('show', 'ports', '--json', '--control', daemon.control)
  expect(json.stdout).toContain(reason)
})

test('done when: an owner under traffic ends, and the newcomer goes on with the same config', async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  const control = lab.controlPath()
  const file = join(lab.directory, 'lab.yaml')
  const ports = netns.map(
    (name, k) =>
      `  - { id: p${k}, type: tap, ifname: x0, netns: ${name}, queues: 4, vnet_hdr: true,` +
      ` script: no, downscript: no, persist: true }\n`,
  )
  writeFileSync(file, `control: ${control}\nports:\n${ports.join('')}`)
  const start = async (...args: string[]): Promise<Background> => {
    const daemon = lab.background(process.execPath, [CLI, 'run', '--config', file, ...args])
    await until(
      'it is ready',
      () => daemon.stderr.includes('framepump: ready') || !daemon.isRunning,
    )
    expect(daemon.stderr).toContain('framepump: ready')
    return daemon
  }
  const ctl = async (path: string, command: string): Promise<unknown> => {
    const { code, stdout, stderr } = await cli('ctl', '--control', path, command)
    expect([code, stderr]).toEqual([0, ''])
    return JSON.parse(stdout)
  }
  const owner = await start()
  netns.forEach((name, k) => lab.address(name, `10.0.0.${k + 1}`))
  await until('traffic flows', () => lab.ping(netns[0], '10.0.0.2', 1) === 1)
  // From here to the end: some are lost while nobody has the TAPs.
  const traffic = lab.start(netns[0], 'ping', '-n', '-i', '0.01', '10.0.0.2')
  const answers = (): number => traffic.stdout.split('bytes from').length - 1
  const newcomer = await start('--incoming', 'defer')
  expect(newcomer.stderr).toContain(`framepump: ready (control ${control}.incoming)`)
  const show = await cli('show', 'ports', '--control', `${control}.incoming`)
  expect(show.stdout.split('postponed')).toHaveLength(3)
  expect(tunDescriptors(newcomer.child.pid!)).toEqual([])
  expect(lab.ping(netns[0], '10.0.0.2', 20)).toBe(20)

  expect(await owner.stop()).toBe(0)
  expect(netns.map((name) => tunState(name)!.held)).toEqual([0, 0])
  await ctl(`${control}.incoming`, 'migrate-incoming')
  expect(netns.map((name) => tunState(name)!.held)).toEqual([4, 4])
  await ctl(`${control}.incoming`, 'cont')
  const before = answers()
  await until('traffic flows through the second', () => answers() > before + 20)
  expect(lab.ping(netns[1], '10.0.0.1', 20)).toBe(20)
  expect(await ctl(control, 'query-status')).toMatchObject({ status: 'running' })
  await traffic.stop('SIGINT')
})

test('what could not be given up after migrate-incoming is given up by the next one, or by cont', async () => {
  await using lab = new Lab()
  const built: string = new URL('../../build/daemon/daemon.js', import.meta.url).href
  const { Daemon: InProcess } = (await import(built)) as unknown as {
    Daemon: typeof DaemonClass
  }
  const refusals = ['first', 'second']
  let isLocked = false
  const privileges = {
    hold: () => Promise.resolve(),
    lock: () => {
      const refusal = refusals.shift()
      if (refusal !== undefined) return Promise.reject(new Error(`planted: ${refusal}`))
      isLocked = true
      return Promise.resolve()
    },
    check: () => undefined,
    explain: (error: unknown) => error,
    status: () => ({}),
  }
  const controlPath = lab.controlPath()
  const daemon = await InProcess.start({
    config: { ports: [], links: [] },
    controlPath,
    incoming: 'defer',
    version: { major: 0, minor: 0, micro: 0 },
    log: () => undefined,
    privileges: privileges as unknown as DaemonOptions['privileges'],
  })
  try {
    const client = await ControlClient.connect(controlPath)
    await expect(client.execute('migrate-incoming')).rejects.toThrow('planted: first')
    await expect(client.execute('cont')).rejects.toThrow('planted: second')
    expect(await client.execute('query-status')).toMatchObject({ running: false })
    await client.execute('migrate-incoming')
    expect(isLocked).toBe(true)
    await expect(client.execute('migrate-incoming')).rejects.toThrow('already been started')
    await client.execute('cont')
    expect(await client.execute('query-status')).toMatchObject({ running: true })
    client.close()
  } finally {
    await daemon.close()
  }
})
