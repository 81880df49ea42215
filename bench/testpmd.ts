/** testpmd, DPDK's program that forwards, as a peer and as the guests of one. */
import type { ChildProcess } from 'node:child_process'
import { spawn } from 'node:child_process'
import { end, sleep, STARTING_LOOKS_MAX } from './topology.ts'

const RINGS = ['--txd=1024', '--rxd=1024', '--total-num-mbufs=16384', '--nb-cores=1']

/** A testpmd at its prompt. */
export class Testpmd {
  readonly child: ChildProcess
  output = ''
  #errors = ''

  /** `memory`: what EAL is told of it. `inNetns`: a command before the program. */
  constructor(
    cpu: number,
    name: string,
    memory: readonly string[],
    devices: readonly string[],
    args: readonly string[],
    inNetns: readonly string[] = [],
  ) {
    const eal = ['--lcores', `0@${cpu},1@${cpu}`, '--no-pci', ...memory]
    const vdevs = devices.map((device) => `--vdev=${device}`)
    const all = [...eal, `--file-prefix=fpb${process.pid}${name}`, ...vdevs]
    // What it prints would stay in its buffer: we are no terminal.
    const program = [...inNetns, 'stdbuf', '-oL', 'dpdk-testpmd']
    const command = [...program, ...all, '--', '-i', ...RINGS, ...args]
    this.child = spawn(command[0], command.slice(1), { stdio: ['pipe', 'pipe', 'pipe'] })
    // Apart: what it complains of may come in the midst of its prompt.
    this.child.stdout!.setEncoding('utf8').on('data', (text: string) => (this.output += text))
    this.child.stderr!.setEncoding('utf8').on('data', (text: string) => (this.#errors += text))
  }

  /** Waits until something stands in the output, which is forgotten then. */
  async expect(pattern: RegExp): Promise<RegExpExecArray> {
    for (let tries = 0; ; tries++) {
      const match = pattern.exec(this.output)
      if (match !== null) {
        this.output = ''
        return match
      }
      if (tries > STARTING_LOOKS_MAX || this.child.exitCode !== null) {
        throw new Error(`testpmd: ${this.#errors}${this.output}`)
      }
      await sleep(20)
    }
  }

  /** Gives a command and waits for what it prints. */
  async command(line: string, pattern: RegExp): Promise<RegExpExecArray> {
    this.output = ''
    this.child.stdin!.write(`${line}\n`)
    return this.expect(pattern)
  }

  async close(): Promise<void> {
    await end(this.child, () => this.child.stdin!.write('stop\nquit\n'))
  }
}
