/** What a config says of a daemon that is replaced: what runs of it goes on, and what is new joins it. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { shim } from '../../src/native/shim.ts'
import { Lab } from '../support/lab.ts'
import { until } from '../support/processes.ts'
import { Line } from '../support/upgrades.ts'

test('H13: static entries of the config go on, by hand, too, and a reload knows which are its own', async () => {
  await using lab = new Lab()
  const config = join(lab.directory, 'switch.yaml')
  const [mine, other, byHand] = ['02:00:00:00:00:01', '02:00:00:00:00:02', '02:00:00:00:00:03']
  const namespaces = [lab.netns(), lab.netns()]
  const write = (fdb: readonly object[]): void => {
    const ports = namespaces.map((netns, k) => ({
      id: `p${k}`,
      type: 'tap',
      ifname: 'x0',
      netns,
    }))
    writeFileSync(config, JSON.stringify({ ports, fdb }))
  }
  write([{ mac: mine, port: 'p0' }])
  const daemon = await lab.daemon('--config', config)
  await using line = new Line(daemon)
  await daemon.execute('fdb-add', { mac: byHand, port: 'p1' })
  const statics = async (): Promise<string[]> => {
    const table =
      await line.execute<{ mac: string; port: string; static?: boolean }[]>('query-mac-table')
    return table.filter((one) => one.static).map(({ mac, port }) => `${mac} ${port}`)
  }
  for (let time = 0; time < 2; time++) {
    await line.upgrade()
    await line.areOthersGone()
    expect((await statics()).toSorted()).toEqual([`${mine} p0`, `${byHand} p1`])
    expect(await line.execute('config-reload')).toEqual({ actions: [], 'needs-restart': [] })
  }
  // Read by the successor, beside what it took over.
  write([
    { mac: mine, port: 'p0' },
    { mac: other, port: 'p1' },
  ])
  await line.upgrade()
  await line.areOthersGone()
  await until('the new one is there', async () => (await statics()).length === 3)
  write([{ mac: other, port: 'p1' }])
  const { actions } = await line.execute<{ actions: string[] }>('config-reload')
  expect(actions).toEqual([`fdb-del ${mine}`])
  expect((await statics()).toSorted()).toEqual([`${other} p1`, `${byHand} p1`])
})

test('H13: what was taken away by hand stays away, and comes back with a reload', async () => {
  await using lab = new Lab()
  const file = join(lab.directory, 'switch.yaml')
  const port = (id: string): object => ({ id, type: 'pcap', record: '/dev/null' })
  const [kept, taken] = ['02:00:00:00:00:01', '02:00:00:00:00:02']
  const config = {
    ports: [port('p0'), port('gone'), port('wired')],
    links: [['gone', 'wired']],
    mirrors: [{ name: 'm', 'select-all': true, 'output-vlan': 7 }],
    fdb: [kept, taken].map((mac) => ({ mac, port: 'p0' })),
  }
  writeFileSync(file, JSON.stringify(config))
  const daemon = await lab.daemon('--config', file)
  await using line = new Line(daemon)
  await daemon.execute('netdev_del', { id: 'gone' })
  await daemon.execute('mirror-del', { name: 'm' })
  await daemon.execute('fdb-del', { mac: taken })
  // Read by the successor, beside what it took over.
  writeFileSync(file, JSON.stringify({ ...config, ports: [...config.ports, port('new')] }))
  const ids = async (): Promise<string[]> =>
    (await line.execute<{ id: string }[]>('query-ports')).map(({ id }) => id)
  for (let time = 0; time < 2; time++) {
    await line.upgrade()
    await line.areOthersGone()
    await until('the new one is there', async () => (await ids()).includes('new'))
    expect((await ids()).toSorted()).toEqual(['new', 'p0', 'wired'])
    expect(await line.execute('query-mirrors')).toEqual([])
    expect(await line.execute('query-mac-table')).toMatchObject([{ mac: kept }])
  }
  const { actions } = await line.execute<{ actions: string[] }>('config-reload')
  const back = ['add gone', `fdb-add ${taken}`, 'link gone,wired', 'mirror m']
  expect(actions.toSorted()).toEqual(back)
})

test('a socket that an earlier successor has left behind is not taken for the one of this', async () => {
  await using lab = new Lab()
  const daemon = await lab.daemon()
  await using line = new Line(daemon)
  const fd = shim.socketUnix(1)
  shim.bindUnix(fd, `${daemon.control}.upgrade`)
  shim.close(fd)
  const { pid } = await line.upgrade()
  await line.areOthersGone()
  expect(line.last).toBe(pid)
})
