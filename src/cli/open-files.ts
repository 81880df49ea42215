/**
 * What is said when the process may not open enough files. Under a very low limit Node cannot even
 * load us, and says that packages are missing; nothing is imported here, so that this is loaded before.
 */
export const OPEN_FILES_HINT = 'allow more open files: ulimit -n 1024, or LimitNOFILE= in the unit'
/** With fewer Node itself cannot load what it needs. */
export const LEAST_OPEN_FILES = 256
const EXIT_MACHINE_LACKS = 77

/** Ends the process with a line that names the limit, if that may be why loading failed. */
export function blameLimit(): void {
  const soft = openFilesLimit()
  if (soft >= LEAST_OPEN_FILES) return
  process.stderr.write(
    `framepump: only ${soft} open files are allowed (${OPEN_FILES_HINT}) [MACHINE_LACKS]\n`,
  )
  process.exit(EXIT_MACHINE_LACKS)
}

/** Infinity: none. Asked without a descriptor, as there may be none left. */
function openFilesLimit(): number {
  const report = process.report.getReport() as {
    readonly userLimits?: { readonly open_files?: { readonly soft?: unknown } }
  }
  const soft = report.userLimits?.open_files?.soft
  return typeof soft === 'number' ? soft : Infinity
}
