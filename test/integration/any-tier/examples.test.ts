/** Examples in config/ that need something beside the switch, with a stand-in for that. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parse } from 'yaml'
import { CLI, Lab, ROOT } from '../../support/lab.ts'
import { sh, until, words } from '../../support/processes.ts'

interface Topology {
  readonly topology: {
    readonly nodes: Readonly<Record<string, { readonly exec: readonly string[] }>>
    readonly links: readonly { readonly endpoints: readonly [string, string] }[]
  }
}

test('containerlab: its nodes are ports of the switch, and reach each other', async () => {
  await using lab = new Lab()
  const directory = join(ROOT, 'config/containerlab')
  const { topology } = parse(readFileSync(join(directory, 'lab.clab.yml'), 'utf8')) as Topology
  const host = lab.netns()
  const nodes = new Map(Object.keys(topology.nodes).map((name) => [name, lab.netns()]))
  // What containerlab makes of it: a veth for each link, in the namespaces that its ends name.
  for (const { endpoints } of topology.links) {
    const [[node, inside], [, outside]] = endpoints.map((end) => end.split(':'))
    const netns = nodes.get(node)!
    sh(
      'ip',
      '-n',
      host,
      ...words(`link add ${outside} type veth peer name ${inside} netns ${netns}`),
    )
    sh('ip', '-n', host, 'link', 'set', outside, 'up')
    sh('ip', '-n', netns, 'link', 'set', inside, 'up')
  }
  for (const [name, { exec }] of Object.entries(topology.nodes)) {
    for (const command of exec) lab.exec(nodes.get(name)!, ...words(command))
  }
  const config = join(directory, 'framepump.yaml')
  const args = [CLI, 'run', '--control', lab.controlPath(), '--config', config]
  const daemon = lab.start(host, process.execPath, ...args)
  await until('it is ready', () => daemon.stderr.includes('ready') || !daemon.isRunning)
  expect({ isRunning: daemon.isRunning, said: daemon.stderr }).toMatchObject({ isRunning: true })
  for (const to of ['10.0.0.2', '10.0.0.3']) expect(lab.ping(nodes.get('n1')!, to)).toBe(3)
  expect(await daemon.stop()).toBe(0)
})
