/** Captures, read back by tshark and compared frame by frame with what was sent. */
import { closeSync, existsSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { readPcap } from '../../src/wire/pcap.ts'
import { CLI, frameHex, Lab } from '../support/lab.ts'
import type { Background } from '../support/processes.ts'
import { sh, until } from '../support/processes.ts'
import { Line } from '../support/upgrades.ts'

const BROADCAST = 'ff:ff:ff:ff:ff:ff'
const SOURCE = '02:00:00:00:00:01'

/** Numbered frames of lengths 60..1514, as hex. */
function variedFrames(count: number): string[] {
  return Array.from({ length: count }, (_, n) =>
    frameHex(BROADCAST, SOURCE, n, 60 + ((n * 37) % 1455)),
  )
}

async function startCapture(lab: Lab, control: string, ...args: string[]): Promise<Background> {
  const capture = lab.background(process.execPath, [CLI, 'capture', '--control', control, ...args])
  await until('the capture runs', () => capture.stderr.includes('capturing') || !capture.isRunning)
  return capture
}

/** The frames of a capture (hex) that tshark finds with a display filter. */
function tsharkFrames(lab: Lab, file: string, filter: string): string[] {
  const out = join(lab.directory, 'tshark.pcap')
  sh('tshark', '-r', file, '-Y', filter, '-F', 'nsecpcap', '-w', out)
  const bytes = readFileSync(out)
  const frames: string[] = []
  readPcap(bytes, {
    frame: (offset, length) => {
      frames.push(bytes.subarray(offset, offset + length).toString('hex'))
    },
  })
  return frames
}

test('every frame is in the capture, once or in and out, as it was sent', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(2)
  const file = join(lab.directory, 'all.pcapng')
  const capture = await startCapture(lab, daemon.control, '-d', 'both', '-w', file)
  const once = join(lab.directory, 'once.pcapng')
  const other = await startCapture(lab, daemon.control, '-w', once)
  const receiver = await lab.receive(netns[1], 500)
  const sent = variedFrames(500)
  await lab.send(netns[0], sent)
  expect(await receiver.frames()).toEqual(sent)
  expect(await capture.stop('SIGINT')).toBe(0)
  expect(await other.stop('SIGINT')).toBe(0)
  const own = 'eth.type == 0x88b5'
  expect(
    tsharkFrames(
      lab,
      file,
      `${own} && frame.interface_name == "p0" && frame.packet_flags_direction == 1`,
    ),
  ).toEqual(sent)
  expect(
    tsharkFrames(
      lab,
      file,
      `${own} && frame.interface_name == "p1" && frame.packet_flags_direction == 2`,
    ),
  ).toEqual(sent)
  expect(tsharkFrames(lab, file, own)).toHaveLength(1000)
  // Without a direction a frame is there once, where it entered.
  expect(tsharkFrames(lab, once, own)).toEqual(sent)
  expect(tsharkFrames(lab, once, 'frame.packet_flags_direction == 2')).toEqual([])
  expect(sh('capinfos', '-t', file)).toContain('pcapng')
})

test('pcap, direction, port, snap length and count are honoured', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(3)
  const file = join(lab.directory, 'some.pcap')
  const options = ['-w', file, '-i', 'p0,p2', '-d', 'in', '-s', '64', '-c', '10']
  const capture = await startCapture(lab, daemon.control, ...options)
  const sent = variedFrames(30)
  await lab.send(netns[1], variedFrames(5))
  await lab.send(netns[0], sent)
  // It ends by itself after ten frames.
  expect(await capture.exited).toBe(0)
  expect(capture.stderr).toContain('10 frames captured, 0 dropped')
  expect(tsharkFrames(lab, file, 'frame')).toEqual(
    sent.slice(0, 10).map((hex) => hex.slice(0, 128)),
  )
  const lengths = sh('tshark', '-r', file, '-T', 'fields', '-e', 'frame.len').trim().split('\n')
  expect(lengths.map(Number)).toEqual(sent.slice(0, 10).map((hex) => hex.length / 2))
  expect(sh('capinfos', '-t', file)).toContain('nanosecond')
})

test('several captures at once, and ports that come during one, are in them', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(2)
  const files = ['a.pcapng', 'b.pcapng'].map((name) => join(lab.directory, name))
  const captures = [
    await startCapture(lab, daemon.control, '-w', files[0]),
    await startCapture(lab, daemon.control, '-w', files[1]),
  ]
  const late = lab.netns()
  await daemon.execute('netdev_add', {
    type: 'tap',
    id: 'late',
    ifname: 'x0',
    netns: late,
    up: true,
  })
  const sent = variedFrames(20)
  await lab.send(late, sent)
  await until('they are forwarded', async () => (await daemon.stats('p1'))['tx_frames'] >= 20)
  for (const capture of captures) expect(await capture.stop('SIGINT')).toBe(0)
  for (const file of files) {
    const filter = 'eth.type == 0x88b5 && frame.interface_name == "late"'
    expect(tsharkFrames(lab, file, filter)).toEqual(sent)
  }
  void netns
})

test('standard output can be piped, and a reader that goes ends that capture alone', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(2)
  const file = join(lab.directory, 'kept.pcapng')
  const kept = await startCapture(lab, daemon.control, '-w', file)
  const command = `"${process.execPath}" "${CLI}" capture --control "${daemon.control}" -w - 2>err | head -c 2000 >/dev/null; cat err >&2`
  const piped = lab.background('sh', ['-c', `cd "${lab.directory}" && ${command}`])
  await until(
    'both run',
    async () => (await daemon.execute<unknown[]>('query-captures')).length === 2,
  )
  const sent = variedFrames(300)
  await lab.send(netns[0], sent)
  await piped.exited
  // It is how such a capture is ended: no error.
  expect(piped.stderr).toMatch(/^framepump: \d+ frames captured, \d+ dropped\n$/)
  await until(
    'it is gone',
    async () => (await daemon.execute<unknown[]>('query-captures')).length === 1,
  )
  // It may end after the first of them.
  await until('they are forwarded', async () => (await daemon.stats('p1'))['tx_frames'] >= 300)
  expect(await kept.stop('SIGINT')).toBe(0)
  const filter = 'eth.type == 0x88b5 && frame.interface_name == "p0"'
  expect(tsharkFrames(lab, file, filter)).toEqual(sent)
})

test('a full disk ends the capture with a clear message, and the switch goes on', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(2)
  const capture = await startCapture(lab, daemon.control, '-w', '/dev/full')
  expect(await capture.exited).toBe(1)
  expect(capture.stderr).toContain('No space left on device')
  expect(lab.ping(netns[0], '10.0.0.2', 2)).toBe(2)
})

test('a capture that is refused leaves the file that was there, and makes none', async () => {
  await using lab = new Lab()
  const { daemon } = await lab.star(2)
  const [kept, made] = [join(lab.directory, 'kept.pcapng'), join(lab.directory, 'made.pcapng')]
  writeFileSync(kept, 'dear')
  for (const file of [kept, made]) {
    const args = ['capture', '--control', daemon.control, '-i', 'nobody', '-w', file]
    const refused = lab.background(process.execPath, [CLI, ...args])
    expect(await refused.exited).toBe(1)
    expect(refused.stderr).toContain(`Device 'nobody' not found`)
  }
  expect(readFileSync(kept, 'utf8')).toBe('dear')
  expect(existsSync(made)).toBe(false)
  // One that is accepted begins with an empty file, whatever was in it.
  const capture = await startCapture(lab, daemon.control, '-w', kept)
  expect(await capture.stop('SIGINT')).toBe(0)
  expect(readFileSync(kept).readUInt32LE(0)).toBe(0x0a0d0d0a)
})

test('a client that is killed leaves a complete file', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(2)
  const file = join(lab.directory, 'killed.pcapng')
  const capture = await startCapture(lab, daemon.control, '-w', file)
  const sent = variedFrames(50)
  await lab.send(netns[0], sent)
  await until('they are forwarded', async () => (await daemon.stats('p1'))['tx_frames'] >= 50)
  await capture.stop('SIGKILL')
  await until(
    'it has ended',
    async () => (await daemon.execute<unknown[]>('query-captures')).length === 0,
  )
  const filter = 'eth.type == 0x88b5 && frame.interface_name == "p0"'
  expect(tsharkFrames(lab, file, filter)).toEqual(sent)
})

test('a replayed file passes the switch and a record port writes it down', async () => {
  await using lab = new Lab()
  const sent = variedFrames(200)
  const text = join(lab.directory, 'frames.txt')
  const input = join(lab.directory, 'in.pcapng')
  writeFileSync(text, sent.map((hex) => `000000 ${hex.match(/../g)!.join(' ')}\n`).join('\n'))
  sh('text2pcap', '-q', text, input)
  const netns = lab.netns()
  const output = join(lab.directory, 'out.pcapng')
  const daemon = await lab.daemon(
    '--port',
    `tap,id=p0,ifname=x0,netns=${netns},up=on`,
    '--port',
    `pcap,id=rec,record=${output}`,
  )
  const receiver = await lab.receive(netns, 400)
  await daemon.execute('netdev_add', {
    type: 'pcap',
    id: 'play',
    replay: input,
    pace: 'full',
    loop: 2,
  })
  expect(await receiver.frames()).toEqual([...sent, ...sent])
  await daemon.execute('netdev_del', { id: 'rec' })
  expect(tsharkFrames(lab, output, 'eth.type == 0x88b5')).toEqual([...sent, ...sent])
})

test('a daemon that ends takes its captures along, and the command says so', async () => {
  await using lab = new Lab()
  const { daemon } = await lab.star(1)
  const file = join(lab.directory, 'x.pcapng')
  const capture = await startCapture(lab, daemon.control, '-w', file)
  await daemon.process.stop('SIGKILL')
  expect(await capture.exited).toBe(1)
  expect(capture.stderr).toContain('the daemon ended during the capture [CAPTURE_LOST]')
})

/** A pipe of the command whose reader does nothing until it is told to: then it writes all down. */
function stalledReader(lab: Lab, control: string, file: string): Background {
  const command = `"${process.execPath}" "${CLI}" capture --control "${control}" -i p0 -w - | (read go <&3; cat >"${file}")`
  return lab.background('bash', ['-c', `exec 3<&0; ${command}`])
}

test('H13: a daemon that is replaced goes on with captures of the command: into files, pipes, and with limits', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(2)
  await using line = new Line(daemon)
  const file = (name: string): string => join(lab.directory, name)
  const captured = async (count: number): Promise<boolean> =>
    (await line.execute<{ id: number; frames: number }[]>('query-captures')).every(
      ({ frames }) => frames >= count,
    )
  const whole = await startCapture(lab, daemon.control, '-w', file('whole.pcapng'))
  const some = await startCapture(lab, daemon.control, '-w', file('some.pcap'), '-c', '170')
  const killed = await startCapture(lab, daemon.control, '-w', file('killed.pcapng'))
  const piped = stalledReader(lab, daemon.control, file('piped.pcapng'))
  const running = async (): Promise<number> =>
    (await line.execute<unknown[]>('query-captures')).length
  await until('all run', async () => (await running()) === 4)
  const sent: string[] = []
  const more = async (): Promise<void> => {
    // More than a pipe holds.
    const frames = variedFrames(100)
    sent.push(...frames)
    await lab.send(netns[0], frames)
    await until('they are captured', () => captured(Math.min(sent.length, 170)))
  }
  await more()
  for (let round = 0; round < 2; round++) {
    const { 'frames-lost': lost } = await line.upgrade()
    expect(lost).toBe(0)
    await line.areOthersGone()
    await more()
    if (round > 0) continue
    // It has ended by itself, and one with its client.
    expect(await some.exited).toBe(0)
    expect(some.stderr).toContain('170 frames captured, 0 dropped')
    await killed.stop('SIGKILL')
    await until('it has ended', async () => (await running()) === 2)
  }
  expect(await whole.stop('SIGINT')).toBe(0)
  expect(whole.stderr).toContain(' 0 dropped')
  piped.child.stdin!.end('go\n')
  const [{ id }] = await line.execute<{ id: number }[]>('query-captures')
  await line.execute('capture-stop', { id })
  expect(await piped.exited).toBe(0)
  const filter = 'eth.type == 0x88b5 && frame.interface_name == "p0"'
  expect(tsharkFrames(lab, file('whole.pcapng'), filter)).toEqual(sent)
  expect(tsharkFrames(lab, file('piped.pcapng'), filter)).toEqual(sent)
  expect(tsharkFrames(lab, file('killed.pcapng'), filter)).toEqual(sent.slice(0, 200))
  expect(tsharkFrames(lab, file('some.pcap'), 'frame')).toHaveLength(170)
}, 60_000)

test('a capture whose client has asked for the hand-over ends where that one stays, and it is told so', async () => {
  await using lab = new Lab()
  const { daemon } = await lab.star(1)
  const fd = openSync(join(lab.directory, 'x.pcapng'), 'w')
  const ended: unknown[] = []
  daemon.client.events.on('event', (name, data) => name === 'CAPTURE_ENDED' && ended.push(data))
  await daemon.client.execute('getfd', { fdname: 'mine' }, fd)
  closeSync(fd)
  const { id } = await daemon.execute<{ id: number }>('capture-start', { fd: 'mine' })
  const uri = `unix:${join(lab.directory, 'next.sock')}`
  const next = await lab.successor(daemon.control, '--incoming', uri)
  const parameters = { 'backend-transfer': true, 'downtime-limit': 10_000 }
  await daemon.execute('migrate-set-parameters', parameters)
  await daemon.execute('migrate', { uri })
  await until('it was told', () => ended.length === 1)
  expect(ended).toMatchObject([{ id, error: 'the switch was handed over: start it again' }])
  expect(await next.execute('query-captures')).toEqual([])
})

test('captures at once, and ports of one, are limited', async () => {
  await using lab = new Lab()
  const daemon = await lab.daemon()
  for (let n = 0; n < 16; n++) {
    await daemon.execute('capture-start', { path: join(lab.directory, `${n}.pcapng`) })
  }
  const path = join(lab.directory, 'more.pcapng')
  await expect(daemon.execute('capture-start', { path })).rejects.toMatchObject({
    code: 'TOO_MANY_CAPTURES',
  })
  expect(existsSync(path)).toBe(false)
})
