/** Tables as iproute2 and ovs print them: columns of blanks, no lines. */
import { printable } from '../switch/printable.ts'

const GAP = 2

type Row = readonly string[]

/** A table whose columns are as wide as what is in them. */
export function formatTable(head: Row, rows: readonly Row[]): string {
  return formatRows([head, ...rows], widthsOf([head, ...rows]))
}

export function widthsOf(rows: readonly Row[]): number[] {
  const widths: number[] = []
  for (const row of rows) {
    for (const [column, text] of row.entries()) {
      widths[column] = Math.max(widths[column] ?? 0, printable(text).length)
    }
  }
  return widths
}

/**
 * Lines without a newline at the end; what is wider than its column moves the rest of its line. What is
 * in the cells may come from a guest, a client or a file.
 */
export function formatRows(rows: readonly Row[], widths: readonly number[]): string {
  return rows
    .map((row) =>
      row
        .map((text, column) => printable(text).padEnd(widths[column]))
        .join(' '.repeat(GAP))
        .trimEnd(),
    )
    .join('\n')
}
