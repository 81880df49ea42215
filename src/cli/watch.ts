/** `--watch`: the same output again and again, in place on a terminal, one after another elsewhere. */
import { hasReader, onReaderGone, write } from './output.ts'

const ROWS = 24
const COLUMNS = 80

export interface WatchTarget {
  /** Makes the output anew; gives it to `emit` in parts. */
  draw(emit: (text: string) => Promise<void>): Promise<void>
  /** What it is, for the first line on a terminal. */
  readonly title: string
}

/** Returns when nobody reads any more; Ctrl-C ends the process. Throws what `draw` throws. */
export async function watch(target: WatchTarget, intervalS: number): Promise<void> {
  const { stdout } = process
  let isFirst = true
  // Its timer is what keeps the process.
  let wake = (): void => undefined
  onReaderGone(() => wake())
  while (hasReader()) {
    let text = ''
    await target.draw(async (part) => void (text += part))
    await write(
      stdout.isTTY ? screen(target.title, intervalS, text) : `${isFirst ? '' : '\n'}${text}`,
    )
    isFirst = false
    if (!hasReader()) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, intervalS * 1000)
      wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }
}

/** Home, each line with its rest cleared, then the rest of the screen: nothing flickers. */
function screen(title: string, intervalS: number, text: string): string {
  // A terminal that does not know its size says 0.
  const rows = process.stdout.rows || ROWS
  const columns = process.stdout.columns || COLUMNS
  const time = new Date().toTimeString().slice(0, 8)
  const lines = [`${title}, every ${intervalS} s, ${time}`, '', ...text.trimEnd().split('\n')]
  const most = Math.max(rows - 1, 1)
  const shown = lines.length > most ? [...lines.slice(0, most - 1), '...'] : lines
  // A line that wrapped would move all below it.
  const cut = shown.map((line) => `${line.slice(0, columns)}\u001b[K\n`)
  return `\u001b[H${cut.join('')}\u001b[J`
}
