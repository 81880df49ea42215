/** Option strings, as QEMU's -netdev. */
import { describe, expect, test } from 'vitest'
import { formatNetdev, parseNetdev } from '../../../src/config/netdev.ts'

describe('an option string', () => {
  test.each([
    ['tap,id=a', { type: 'tap', id: 'a' }],
    ['type=tap,id=a', { type: 'tap', id: 'a' }],
    ['id=a,type=tap', { type: 'tap', id: 'a' }],
    ['tap,id=a,vnet_hdr', { type: 'tap', id: 'a', vnet_hdr: true }],
    ['tap,id=a,script=', { type: 'tap', id: 'a', script: '' }],
    ['tap,id=a,netns=a=b', { type: 'tap', id: 'a', netns: 'a=b' }],
    ['pcap,id=a,replay=/x,,y', { type: 'pcap', id: 'a', replay: '/x,y' }],
    ['pcap,id=a,replay=/x,,,,y', { type: 'pcap', id: 'a', replay: '/x,,y' }],
  ])('%s', (spec, options) => {
    expect(parseNetdev(spec)).toEqual(options)
  })

  test.each([
    ['', `unknown port type ""`],
    ['tap', `Parameter 'id' is missing`],
    ['tap,id=a,id=b', 'key "id" is given twice in "tap,id=a,id=b"'],
    ['tap,type=tap,id=a', 'key "type" is given twice in "tap,type=tap,id=a"'],
    ['tap,id=a,=x', 'empty key in "tap,id=a,=x"'],
    ['tap,id=a,', 'empty key in "tap,id=a,"'],
    ['tap,id=a,wat', 'unknown key "wat" for a tap port'],
    ['tap,id=a,__proto__=x', 'unknown key "__proto__" for a tap port'],
    ['tap,id=a,__proto__=x,__proto__=y', 'key "__proto__" is given twice'],
    ['tap,id=a,constructor=x', 'unknown key "constructor" for a tap port'],
    ['toString,id=a', 'unknown port type "toString"'],
    ['__proto__=tap,id=a', `Parameter 'type' is missing`],
    ['tap,id=a,up=valueOf', '"up" must be on or off'],
    ['tap,id=a,sndbuf=1constructor', '"sndbuf" must be a number'],
  ])('%j is refused', (spec, text) => {
    expect(() => parseNetdev(spec)).toThrow(text)
  })

  test.each(['trunks=10,20', 'ips=10.0.0.1,10.0.0.2', 'ips=10.0.0.1,[fd00::1]'])(
    '%s: a list that is split at commas is said to be one',
    (list) => {
      expect(() => parseNetdev(`tap,id=a,${list}`)).toThrow(
        expect.objectContaining({ hint: 'a list is split at ":", as trunks=10:20-30' }),
      )
    },
  )

  test('is formatted with booleans as on and off, commas doubled, and no absent option', () => {
    expect(formatNetdev({ type: 'tap', id: 'a', vnet_hdr: true, up: false, script: '/a,b' })).toBe(
      'tap,id=a,vnet_hdr=on,up=off,script=/a,,b',
    )
  })
})
