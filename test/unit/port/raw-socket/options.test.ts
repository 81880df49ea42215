/** What one option of a raw socket says about another. */
import { expect, test } from 'vitest'
import { parseNetdev } from '../../../../src/config/netdev.ts'

test.each([
  ['queues=64', true],
  ['queues=64,ring-kb=16384', true],
  ['queues=64,ring-kb=16385', false],
  ['queues=5,ring-kb=262144', false],
  ['queues=4,ring-kb=262144', true],
])('rings of all queues together are no more than 1 GiB: %s', (options, isRight) => {
  const parse = (): unknown => parseNetdev(`raw-socket,id=u,ifname=eth1,${options}`)
  if (isRight) expect(parse()).toMatchObject({ type: 'raw-socket' })
  else expect(parse).toThrow('than the 1048576 KiB that a port may have')
})
