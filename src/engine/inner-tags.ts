/**
 * Ports that ask what tag is inside that of a frame's VLAN: access ports take no frame that has another one,
 * and a tunnel's customer only those VLANs that are listed.
 */
import type { Burst } from '../mem/burst.ts'
import { HEAD_WORDS } from '../mem/burst.ts'
import type { VlanPorts } from '../offload/vlan-ports.ts'
import { tagIn, vidOf } from '../wire/vlan.ts'

/** Addresses and two tags. */
const LOOKED_AT = 20
const INNER_AT = 16

/**
 * Of the frames list[first .. first + count) those stay that `to` takes, in their order; returns how many. All
 * came in by `from`, and are of a VLAN that `to` carries. @hot
 */
export function keepWithInnerTag(
  burst: Burst,
  list: Int32Array,
  first: number,
  count: number,
  from: number,
  to: number,
  vlans: VlanPorts,
): number {
  const { heads, headers } = burst
  const isTunnel = vlans.isTunnel(from)
  // What comes by a tunnel has another tag before its own.
  if (!isTunnel) {
    let asked = 0
    for (let at = first; at < first + count; at++) {
      if (tagIn(heads[list[at] * HEAD_WORDS + 3]) === 0) continue
      headers.want(list[at], LOOKED_AT)
      asked++
    }
    if (asked > 0) headers.read()
  }
  let kept = first
  for (let at = first; at < first + count; at++) {
    const k = list[at]
    const outer = tagIn(heads[k * HEAD_WORDS + 3])
    const inner = isTunnel ? vidOf(outer) : outer === 0 ? 0 : innerVid(burst, k)
    if (vlans.carriesInner(to, inner)) list[kept++] = k
  }
  return kept - first
}

/** The VID of the second tag, 0 if there is none. @hot */
function innerVid(burst: Burst, k: number): number {
  const { headers } = burst
  if (headers.available(k) < LOOKED_AT) return 0
  const at = headers.at(k) + INNER_AT
  const { bytes } = headers
  const word = bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)
  return vidOf(tagIn(word))
}
