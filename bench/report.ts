/** What the rows of the bench have measured. */

export interface Figure {
  readonly row: string
  readonly peer: string
  readonly unit: string
  readonly values: number[]
}

export class Report {
  readonly figures: Figure[] = []

  add(row: string, peer: string, unit: string, value: number): void {
    const known = this.figures.find(
      (figure) => figure.row === row && figure.peer === peer && figure.unit === unit,
    )
    if (known === undefined) this.figures.push({ row, peer, unit, values: [value] })
    else known.values.push(value)
  }
}

export const sorted = (values: readonly number[]): number[] => [...values].sort((a, b) => a - b)

export const median = (values: readonly number[]): number => {
  const all = sorted(values)
  const middle = all.length >> 1
  return all.length % 2 === 1 ? all[middle] : (all[middle - 1] + all[middle]) / 2
}
