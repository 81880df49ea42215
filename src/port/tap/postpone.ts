/**
 * Which TAPs wait for the pre-incoming point: those that a predecessor may still own, and that can be
 * opened by name later without running anything. Nothing here touches a device.
 */
import type { TapOptions } from '../options.ts'

/** Options that say which descriptor to use: it has been given, so it is used. */
const GIVEN = ['fd', 'fds', 'helper', 'vhostfd', 'vhostfds'] as const

/**
 * Why the TAP is opened at once; undefined: it is postponed. Requirements E1 to E6: an explicit
 * name, explicitly no scripts, and no descriptor from elsewhere. What else is given has no say.
 */
export function whyNotPostponed(options: TapOptions, isIncoming: boolean): string | undefined {
  if (!isIncoming) return 'not started with --incoming'
  const given = GIVEN.find((key) => options[key] !== undefined)
  if (given !== undefined) return `${given}= is given: a given descriptor is used`
  const { ifname, script, downscript } = options
  if (ifname === undefined || ifname === '') return 'ifname not given: the name is not known'
  if (ifname.includes('%d')) return `ifname=${ifname}: the name is not known`
  const absent =
    script === undefined ? 'script' : downscript === undefined ? 'downscript' : undefined
  if (absent !== undefined) return `${absent} not given: add script=no,downscript=no`
  if (!isNone(script)) return `script=${script}: a script runs when the interface is opened`
  if (!isNone(downscript)) return `downscript=${downscript}: a script runs when it is closed`
  return undefined
}

function isNone(script: string | undefined): boolean {
  return script === '' || script === 'no'
}

/** What a postponed TAP is, in QEMU's words (P4). */
export function postponedInfo(options: TapOptions): string {
  return `ifname=${options.ifname},script=no,downscript=no`
}
