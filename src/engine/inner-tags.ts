/**
 * Ports that ask what tag is inside that of a frame's VLAN: access ports take no frame that has another one,
 * and a tunnel's customer only those VLANs that are listed.
 */
import type { Burst } from '../mem/burst.ts'
import { HEAD_WORDS } from '../mem/burst.ts'
import type { VlanPorts } from '../offload/vlan-ports.ts'
import { tagIn, vidOf } from '../wire/vlan.ts'

/** Addresses and two tags: of a shorter frame there is no inner one. */
const TAGS_END = 20

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
  const { heads, inners, length } = burst
  const isTunnel = vlans.isTunnel(from)
  if (burst.isOneRun) {
    // What comes by a tunnel has another tag before its own.
    const outer = tagIn(heads[list[first] * HEAD_WORDS + 3])
    if (outer === 0 || isTunnel) return vlans.carriesInner(to, vidOf(outer)) ? count : 0
    burst.readInners()
    // Most have none, and those that are too short for one as well.
    if (burst.hasOneInner && tagIn(inners[0]) === 0) return vlans.carriesInner(to, 0) ? count : 0
  }
  // The verdict on a VID is that on the next one, if it is the same: mostly there is none.
  let last = 0
  let isTaken = vlans.carriesInner(to, 0)
  let isRead = false
  let kept = first
  for (let at = first; at < first + count; at++) {
    const k = list[at]
    const outer = tagIn(heads[k * HEAD_WORDS + 3])
    let tag = 0
    if (isTunnel) tag = outer
    else if (outer !== 0 && length[k] >= TAGS_END) {
      if (!isRead) burst.readInners()
      isRead = true
      tag = tagIn(inners[k * HEAD_WORDS])
    }
    const inner = vidOf(tag)
    if (inner !== last) {
      last = inner
      isTaken = vlans.carriesInner(to, inner)
    }
    if (isTaken) list[kept++] = k
  }
  return kept - first
}
