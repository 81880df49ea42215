/**
 * Which TAPs are postponed: requirements E1 to E7 and P3, P4 of the postponed set-up. Not here,
 * because framepump has neither hubs nor vhost-net: the first half of E7, P6, and the defects D3
 * (vhostfd dropped), D4 (a second migration mode) and D7 (a vhost descriptor closed twice).
 */
import { describe, expect, test } from 'vitest'
import { portOptionsFromObject } from '../../../../src/config/port-options.ts'
import type { TapOptions } from '../../../../src/port/options.ts'
import { postponedInfo, whyNotPostponed } from '../../../../src/port/tap/postpone.ts'
import { postponePort } from '../../../../src/port/kinds.control.ts'
import { PostponedControlPort } from '../../../../src/port/postponed.control.ts'

const ELIGIBLE: TapOptions = {
  type: 'tap',
  id: 'a',
  ifname: 'fp0',
  script: 'no',
  downscript: 'no',
}

function without(...keys: (keyof TapOptions)[]): TapOptions {
  const rest: Partial<Record<keyof TapOptions, unknown>> = { ...ELIGIBLE }
  for (const key of keys) delete rest[key]
  return rest as unknown as TapOptions
}

describe('E1: only an incoming instance postpones', () => {
  test('a normal start opens at once', () => {
    expect(whyNotPostponed(ELIGIBLE, false)).toBe('not started with --incoming')
  })

  test('an incoming one postpones', () => {
    expect(whyNotPostponed(ELIGIBLE, true)).toBeUndefined()
  })
})

describe('E2: a given descriptor is used', () => {
  test.each(['fd', 'fds', 'helper', 'vhostfd', 'vhostfds'] as const)('%s=', (key) => {
    const reason = whyNotPostponed({ ...ELIGIBLE, [key]: '3' }, true)
    expect(reason).toBe(`${key}= is given: a given descriptor is used`)
  })

  test.each([
    ['fd', 'invalid with fd='],
    ['fds', 'invalid with fds='],
    ['helper', 'invalid with helper='],
    ['vhostfds', `vhostfds= is invalid if fds= wasn't specified`],
  ])('the usual conflict errors of %s= come first', (key, text) => {
    expect(() => portOptionsFromObject({ ...ELIGIBLE, [key]: '3' })).toThrow(text)
  })
})

describe('E3: the name must be known', () => {
  test.each([undefined, '', 'tap%d', '%d'])('ifname %s', (ifname) => {
    const options = ifname === undefined ? without('ifname') : { ...ELIGIBLE, ifname }
    expect(whyNotPostponed(options, true)).toContain('the name is not known')
  })
})

describe('E4: both scripts must be given as none', () => {
  const VALUES = [undefined, '', 'no', '/path'] as const
  const cells = VALUES.flatMap((script) =>
    VALUES.map((downscript) => [script, downscript] as const),
  )

  test.each(cells)('script %s, downscript %s', (script, downscript) => {
    const options: TapOptions = {
      ...without('script', 'downscript'),
      ...(script === undefined ? {} : { script }),
      ...(downscript === undefined ? {} : { downscript }),
    }
    const isNone = (value: string | undefined): boolean => value === '' || value === 'no'
    const reason = whyNotPostponed(options, true)
    expect(reason === undefined).toBe(isNone(script) && isNone(downscript))
  })

  test('absent is told with its fix', () => {
    const both = whyNotPostponed(without('script', 'downscript'), true)
    expect(both).toBe('script not given: add script=no,downscript=no')
    const one = whyNotPostponed(without('downscript'), true)
    expect(one).toBe('downscript not given: add script=no,downscript=no')
  })
})

test('E5: not eligible is a reason, not an error', () => {
  expect(postponePort(without('script'), true)).toBe(
    'script not given: add script=no,downscript=no',
  )
})

describe('E6: what else is given has no say', () => {
  const EXTRAS: Partial<TapOptions>[] = [
    { queues: 1 },
    { queues: 8 },
    { vnet_hdr: true },
    { vnet_hdr: false },
    { sndbuf: 0 },
    { sndbuf: 65536 },
    { vhost: false },
    { vhost: true },
    { vhostforce: true },
    { 'poll-us': 10 },
    { br: 'br0' },
    { queues: 4, vnet_hdr: false, sndbuf: 1, vhost: true, vhostforce: true, 'poll-us': 1, br: 'x' },
  ]

  test.each(EXTRAS)('%o', (extra) => {
    expect(whyNotPostponed({ ...ELIGIBLE, ...extra }, true)).toBeUndefined()
  })
})

test('E7: vhost=off with vhostfd(s) is refused before anything is postponed', () => {
  for (const key of ['vhostfd', 'vhostfds']) {
    expect(() => portOptionsFromObject({ ...ELIGIBLE, vhost: 'off', [key]: '3' })).toThrow(
      'vhostfd(s)= is not valid without vhost',
    )
  }
})

describe('what a postponed port is', () => {
  const port = (extra: Partial<TapOptions> = {}): PostponedControlPort => {
    const postponed = postponePort({ ...ELIGIBLE, ...extra }, true)
    expect(postponed).toBeInstanceOf(PostponedControlPort)
    return postponed as PostponedControlPort
  }

  test('P1: it has all of its queues', () => {
    expect(port().queues).toBe(1)
    expect(port({ queues: 4 }).queues).toBe(4)
  })

  test('P3: vnet_hdr is wanted when it is given as on, or not given', () => {
    expect(port().txOffloads).not.toBe(0)
    expect(port({ vnet_hdr: true }).txOffloads).not.toBe(0)
    expect(port({ vnet_hdr: false }).txOffloads).toBe(0)
  })

  test(`P4: its info is QEMU's`, () => {
    expect(postponedInfo(ELIGIBLE)).toBe('ifname=fp0,script=no,downscript=no')
    expect(port({ script: '' }).info).toBe('ifname=fp0,script=no,downscript=no')
  })

  test('C1: closing it closes nothing, as often as one likes', async () => {
    const postponed = port()
    await postponed.close()
    await postponed.close()
  })
})
