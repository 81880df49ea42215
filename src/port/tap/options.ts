/** Options of a TAP: what each may be, and what one says about another. */
import type { TapOptions } from '../options.ts'
import { checkIfname, fail, GRO, ID, MTU } from '../option-rules.ts'
import type { At, OptionRules } from '../option-rules.ts'

const FDS_MAX = 1024

export const tapRules: OptionRules = {
  id: ID,
  ifname: { kind: 'string' },
  fd: { kind: 'string' },
  fds: { kind: 'string' },
  helper: { kind: 'string' },
  br: { kind: 'string' },
  script: { kind: 'script' },
  downscript: { kind: 'script' },
  sndbuf: { kind: 'size', range: [0, Number.MAX_SAFE_INTEGER] },
  vnet_hdr: { kind: 'boolean' },
  vhost: { kind: 'boolean' },
  vhostfd: { kind: 'string' },
  vhostfds: { kind: 'string' },
  vhostforce: { kind: 'boolean' },
  queues: { kind: 'integer', range: [1, 256] },
  'poll-us': { kind: 'integer', range: [0, 0xffff_ffff] },
  persist: { kind: 'boolean' },
  netns: { kind: 'string' },
  mtu: MTU,
  owner: { kind: 'string' },
  group: { kind: 'string' },
  up: { kind: 'boolean' },
  gro: GRO,
}

/** QEMU's conflict rules in QEMU's order, with its texts. */
export function checkTap(options: TapOptions, at: At): void {
  const has = (...keys: (keyof TapOptions)[]): boolean =>
    keys.some((key) => options[key] !== undefined)
  if (options.vhost === false && has('vhostfd', 'vhostfds')) {
    fail(at('vhost'), 'vhostfd(s)= is not valid without vhost')
  }
  if (has('fd')) {
    if (has('ifname', 'script', 'downscript', 'vnet_hdr', 'helper', 'queues', 'fds', 'vhostfds')) {
      fail(
        at('fd'),
        'ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, fds=, and vhostfds= are invalid with fd=',
      )
    }
  } else if (has('fds')) {
    if (has('ifname', 'script', 'downscript', 'vnet_hdr', 'helper', 'queues', 'vhostfd')) {
      fail(
        at('fds'),
        'ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, and vhostfd= are invalid with fds=',
      )
    }
    checkFds(options, at)
  } else if (has('helper')) {
    if (has('ifname', 'script', 'downscript', 'vnet_hdr', 'queues', 'vhostfds')) {
      fail(
        at('helper'),
        'ifname=, script=, downscript=, vnet_hdr=, queues=, and vhostfds= are invalid with helper=',
      )
    }
  } else if (has('vhostfds')) {
    fail(at('vhostfds'), `vhostfds= is invalid if fds= wasn't specified`)
  }
  if (options.vhost === true || options.vhostforce === true) {
    fail(at('vhost'), 'vhost-net requested but could not be initialized', 'use vhost=off')
  }
  if (has('vhostfd', 'vhostfds', 'poll-us')) {
    fail(at('vhostfd'), 'vhostfd=, vhostfds= and poll-us= need vhost-net, which framepump has not')
  }
  if (has('br') && !has('helper')) fail(at('br'), 'br= is only valid with helper=')
  if (has('netns') && has('fd', 'fds', 'helper')) {
    fail(at('netns'), 'netns= is invalid with fd=, fds= and helper=')
  }
  checkIfname(options.ifname, at)
}

function checkFds(options: TapOptions, at: At): void {
  const count = options.fds!.split(':').length
  if (count > FDS_MAX) fail(at('fds'), `fds= takes at most ${FDS_MAX} descriptors`)
  if (options.vhostfds !== undefined && options.vhostfds.split(':').length !== count) {
    fail(at('fds'), 'The number of fds passed does not match the number of vhostfds passed')
  }
}
