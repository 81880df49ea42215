#!/usr/bin/env node
/**
 * framepump's first lines, before anything else is loaded (imports would be, all of them): what a
 * signal does is decided here, and what is loaded after it takes longer than a signal.
 */
import { setFlagsFromString } from 'node:v8'
import { blameLimit } from './open-files.ts'
import { catchSignals, refuseInspector } from './signals.ts'

if (process.argv[2] === 'run') catchSignals()
// Frames wait for one that takes over, and V8 compiles a function with its first call: here, as it is loaded.
if (process.argv.some((arg) => /^--incoming\b/.test(arg))) setFlagsFromString('--no-lazy')
await refuseInspector()
try {
  await import('./program.ts')
} catch (error) {
  blameLimit()
  throw error
}
