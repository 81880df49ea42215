/** Bugs to plant: small replacements of text, each in one place, and the suite that is to find it. */

export interface Mutation {
  readonly name: string
  readonly file: string
  readonly from: string
  readonly to: string
  readonly suite: 'fuzz' | 'unit' | 'property'
  /** Of the fuzzer, or the files of the suite. */
  readonly target: string
}

const of =
  (suite: Mutation['suite']) =>
  (target: string, file: string, name: string, from: string, to: string): Mutation => ({
    name,
    file,
    from,
    to,
    suite,
    target,
  })
const fuzz = of('fuzz')

const SPLIT = 'src/virtio/ring/split-queue.ts'
const PACKED = 'src/virtio/ring/packed-queue.ts'
const BULK = 'native-shim/src/bulk.c'
const WINDOW = 'native-shim/src/window.c'
const SESSION = 'src/vhost-user/session.ts'

export const MUTATIONS: readonly Mutation[] = [
  // --- rings
  fuzz(
    'split',
    SPLIT,
    'an avail step one beyond the size is taken',
    'waiting > this.size)',
    'waiting > this.size + 1)',
  ),
  fuzz(
    'split',
    SPLIT,
    'a head one beyond the table is taken',
    'head < this.size ?',
    'head <= this.size ?',
  ),
  fuzz(
    'split',
    SPLIT,
    'a used length is one too long',
    'this.#usedWords[at + 1] = length\n',
    'this.#usedWords[at + 1] = length + 1\n',
  ),
  fuzz(
    'split',
    SPLIT,
    'no second look after kicks are asked for',
    'that.\n    return this.hasChain()',
    'that.\n    return false',
  ),
  fuzz(
    'split',
    SPLIT,
    'the next index does not wrap',
    'this.#next = (this.#next + 1) & 0xffff\n    this.#waiting--',
    'this.#next = this.#next + 1\n    this.#waiting--',
  ),
  fuzz(
    'packed',
    PACKED,
    'the wrap counter stays at the end of a lap',
    'next -= this.size\n      this.#wrap ^= 1',
    'next -= this.size',
  ),
  fuzz(
    'packed',
    'src/virtio/ring/packed-event.ts',
    'an event one entry behind calls',
    'distance < count',
    'distance <= count',
  ),
  fuzz(
    'packed',
    'src/virtio/ring/chain.ts',
    'a buffer goes on behind its region',
    'const part = left < memory.room ? left : memory.room',
    'const part = left',
  ),
  fuzz(
    'guest-memory',
    'src/mem/guest-memory.ts',
    'a region has one byte more',
    'address >= this.#limits[low]',
    'address > this.#limits[low]',
  ),
  fuzz(
    'split',
    'src/virtio/net/frame-sink.ts',
    'num_buffers is always 1',
    '| (buffers << 16)',
    '| (1 << 16)',
  ),
  fuzz(
    'packed',
    'src/virtio/net/frame-source.ts',
    'a frame of an Ethernet header is malformed',
    'if (length < ETHER_HEADER_LENGTH) this.malformed++',
    'if (length <= ETHER_HEADER_LENGTH) this.malformed++',
  ),
  fuzz(
    'dirty-log',
    'src/virtio/ring/dirty-log.ts',
    'the page behind a write is marked',
    '(address + length - 1)',
    '(address + length)',
  ),
  // --- vhost-user
  fuzz(
    'guest-session',
    SESSION,
    'regions that adjoin are refused',
    'row.guestAddress + row.size <= other.guestAddress',
    'row.guestAddress + row.size < other.guestAddress',
  ),
  fuzz(
    'guest-session',
    SESSION,
    'regions may overlap by a byte',
    'row.guestAddress + row.size <= other.guestAddress',
    'row.guestAddress + row.size <= other.guestAddress + 4096',
  ),
  fuzz(
    'guest-session',
    SESSION,
    'a kick that is replaced stays open',
    '    this.#closeFd(vring.kickFd)\n    vring.kickFd = fd\n',
    '    vring.kickFd = fd\n',
  ),
  fuzz(
    'guest-session',
    SESSION,
    'a descriptor that nobody wanted is closed twice',
    'return this.#options.closeFd(oneFd(fds))\n    }\n',
    'return this.#options.closeFd(fds[0])\n    }\n',
  ),
  fuzz(
    'guest-session',
    'src/port/vhost-user/guest-device.ts',
    'a table that fails leaks the descriptors behind',
    'for (const { fd } of regions.slice(mapped.length + 1)) shim.close(fd)',
    '',
  ),
  fuzz(
    'session',
    'src/vhost-user/codec.ts',
    'the length of a reply in the other byte order',
    'view.setUint32(8, payloadLength, true)',
    'view.setUint32(8, payloadLength)',
  ),
  // --- offloads
  fuzz(
    'segmentation',
    'src/wire/headers.ts',
    'a sum is folded once',
    '  folded = (folded & 0xffff) + (folded >>> 16)\n',
    '',
  ),
  fuzz(
    'segmentation',
    'src/offload/segment.ts',
    'PSH is on every segment',
    'flags &= ~(TCP_FIN | TCP_PSH)',
    'flags &= ~TCP_FIN',
  ),
  fuzz(
    'segmentation',
    'src/offload/segment.ts',
    'the length of UDP is that of the first segment',
    'l4 + UDP_LENGTH, UDP_HEADER_LENGTH + part)',
    'l4 + UDP_LENGTH, UDP_HEADER_LENGTH + part + done)',
  ),
  fuzz(
    'segmentation',
    'src/offload/checksum-program.ts',
    'a piece at an odd byte is not swapped',
    'this.#rowIsOdd[row] !== 0 ? swapped : result',
    'result',
  ),
  fuzz(
    'coalescing',
    'src/offload/coalesce.ts',
    'a longer segment is merged',
    '    if (payload > burst.length[first] - this.#end[first]) return false\n',
    '',
  ),
  // --- shim
  fuzz(
    'shim-rows',
    WINDOW,
    'a read-only window is writable',
    'flags & READ_ONLY ? PROT_READ : PROT_READ | PROT_WRITE',
    'PROT_READ | PROT_WRITE',
  ),
  fuzz(
    'shim-rows',
    BULK,
    'a copy goes into a read-only window',
    '*destination = window_range_writable(row[2], row[3], row[4])',
    '*destination = window_range(row[2], row[3], row[4])',
  ),
  fuzz(
    'shim-rows',
    WINDOW,
    'a range may end a byte behind its window',
    '(uint64_t)offset + (uint64_t)length > whole ',
    '(uint64_t)offset + (uint64_t)length > whole + 1 ',
  ),
  fuzz(
    'shim-rows',
    BULK,
    'a sum is folded once, natively',
    'while (sum >> 16)\n',
    'if (sum >> 16)\n',
  ),
  fuzz(
    'shim-rows',
    BULK,
    'a page more is dirty',
    'first + (uint32_t)row[1] - 1;',
    'first + (uint32_t)row[1];',
  ),
  // --- switching, files, requests
  fuzz(
    'mac-table',
    'src/engine/mac-table.ts',
    'an entry is not shifted into its own cell',
    '((next - home) & mask) >= ((next - hole) & mask)',
    '((next - home) & mask) > ((next - hole) & mask)',
  ),
  fuzz(
    'forwarding',
    'src/engine/forward.ts',
    'a flood comes back to its sender',
    'if (port !== inPort) this.#give(burst, first, end, port)\n    }\n',
    'this.#give(burst, first, end, port)\n    }\n',
  ),
  fuzz(
    'packet-ring',
    'src/port/raw-socket/ring.ts',
    'a frame may lie beyond its slot',
    ' && mac + length <= SLOT_LENGTH',
    '',
  ),
  fuzz(
    'packet-ring',
    'src/port/raw-socket/ring.ts',
    'the addresses do not move for a tag',
    'bytes[at - VLAN_TAG_LENGTH] = bytes[at]',
    'bytes[at] = bytes[at]',
  ),
  fuzz(
    'packet-ring',
    'src/port/raw-socket/ring.ts',
    'the checksum of a tagged frame begins where that of the untagged did',
    'halfWords[half + 3] += VLAN_TAG_LENGTH',
    'halfWords[half + 3] += 0',
  ),
  fuzz(
    'packet-ring',
    'src/port/raw-socket/ring.ts',
    'a slot of a burst is not given back',
    'for (let left = this.#taken; left > 0;',
    'for (let left = this.#taken; left > 1;',
  ),
  fuzz(
    'json',
    'src/sockets/json-stream.ts',
    'JSON may be nested without a limit',
    'if (depth > DEPTH_MAX)',
    'if (depth > 1e9)',
  ),
  fuzz(
    'captures',
    'src/wire/pcapng.ts',
    'a pcapng block has too much padding',
    '(length + 3) & ~3',
    '(length + 4) & ~3',
  ),
  fuzz(
    'options',
    'src/config/netdev.ts',
    'a doubled comma is two',
    "      field += ','\n      at++\n",
    "      field += ','\n",
  ),
]
