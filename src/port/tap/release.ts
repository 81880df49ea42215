/**
 * Before an interface is taken over: is it there, and has its owner let go of it? A second process
 * that attaches to a multi-queue TAP gets a share of its frames, and its settings are the device's.
 * So the queues that somebody holds are read over netlink, which does not touch the device.
 */
import { SysError } from '../../errors.ts'
import { counted } from '../../text.ts'
import type { TapOptions } from '../options.ts'
import type { LinkShim } from '../interface/link.ts'
import { holderOf } from '../interface/held.ts'
import { getLink } from '../interface/link.ts'

/** An owner that has just been told to end needs a moment. */
const RELEASE_MS = 1000
const RELEASE_WAIT_MS = 20

/**
 * Resolves when nobody has a queue of the interface, at once when there is no such interface and it
 * may be made. Single-queue TAPs need no look: TUNSETIFF answers EBUSY.
 */
export async function awaitRelease(
  shim: LinkShim,
  netnsFd: number,
  ifname: string,
  options: Pick<TapOptions, 'netns' | 'persist'>,
): Promise<void> {
  const deadline = Date.now() + RELEASE_MS
  for (;;) {
    const link = getLink(shim, netnsFd, ifname)
    if (link === null) {
      if (options.persist !== true) return
      const where =
        options.netns === undefined ? 'this network namespace' : `netns ${options.netns}`
      throw new SysError('TAP_MISSING', `no interface "${ifname}" in ${where}`, {
        ifname,
        hint: 'its owner did not leave it: make it, or drop persist=on',
      })
    }
    const held = link.tunQueues
    if (held === 0) return
    if (Date.now() >= deadline) {
      const queues = `${counted(held, 'queue')} ${held === 1 ? 'is' : 'are'}`
      const holder = holderOf(shim, ifname, netnsFd)
      const who = holder === undefined ? 'another process' : `port "${holder}"`
      throw new SysError('TAP_HELD', `${ifname}: ${queues} still attached by ${who}`, {
        ifname,
        hint:
          holder === undefined
            ? 'stop its owner, then repeat the command'
            : 'give another ifname=, or remove that port',
      })
    }
    await new Promise((resolve) => setTimeout(resolve, RELEASE_WAIT_MS))
  }
}
