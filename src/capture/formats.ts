/** What a file that is to be replayed is when it is no pcap or pcapng file, from its first bytes. */
import {
  PCAP_MAGIC_IXIA_HARDWARE,
  PCAP_MAGIC_IXIA_SOFTWARE,
  PCAP_MAGIC_NAVTEL,
} from '../abi/pcapng.ts'

interface Format {
  readonly name: string
  readonly hint: string
}

const CONVERT = 'convert it with editcap -F pcapng'

/** First bytes as hex, and the program that undoes it. */
const COMPRESSED: readonly (readonly [string, string, string])[] = [
  ['28b52ffd', 'zstd', 'unpack it with zstd -d'],
  ['04224d18', 'LZ4', 'unpack it with lz4 -d'],
  ['02214c18', 'LZ4', 'unpack it with lz4 -d'],
  ['fd377a585a00', 'xz', 'unpack it with xz -d'],
  ['425a68', 'bzip2', 'unpack it with bzip2 -d'],
  ['1f9d', 'compress', 'unpack it with uncompress'],
  ['504b0304', 'ZIP', 'unpack it with unzip'],
  ['377abcaf271c', '7-Zip', 'unpack it'],
  ['1f8b', 'gzip twice', 'unpack it with gunzip'],
]

/** First bytes as hex. */
const CAPTURES: readonly (readonly [string, string])[] = [
  ['736e6f6f70000000', 'a snoop capture'],
  ['6274736e6f6f7000', 'a btsnoop capture'],
  ['52545353', 'a Network Monitor 1 capture'],
  ['474d4255', 'a Network Monitor 2 capture'],
  ['58435000', 'a NetXRay capture'],
  ['5452534e49464620', 'a Sniffer capture'],
  ['697074726163652032', 'an iptrace capture'],
  ['697074726163652031', 'an iptrace capture'],
  ['7f766572', 'a Peek capture'],
  ['05564945', 'a 5View capture'],
  ['4c504b5348485248', 'a systemd journal'],
  ['7f454c46', 'a program'],
  ['89504e47', 'a picture'],
]

const VENDORS: readonly (readonly [number, string])[] = [
  [PCAP_MAGIC_IXIA_HARDWARE, 'Ixia'],
  [PCAP_MAGIC_IXIA_SOFTWARE, 'Ixia'],
  [PCAP_MAGIC_NAVTEL, 'Navtel'],
]

/** Whether it begins as a gzip file. RFC 1952 */
export function isGzip(bytes: Uint8Array): boolean {
  return bytes.length > 2 && bytes[0] === 0x1f && bytes[1] === 0x8b
}

/** null: nothing that is known. */
export function nameFormat(bytes: Uint8Array): Format | null {
  const start = Buffer.from(bytes.subarray(0, 16)).toString('hex')
  for (const [magic, name, hint] of COMPRESSED) {
    if (start.startsWith(magic)) return { name: `compressed with ${name}`, hint }
  }
  for (const [magic, name] of CAPTURES) {
    if (start.startsWith(magic)) return { name, hint: CONVERT }
  }
  if (bytes.length >= 4) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    for (const [magic, vendor] of VENDORS) {
      if (view.getUint32(0, true) !== magic && view.getUint32(0, false) !== magic) continue
      return { name: `a pcap file in the format of ${vendor}`, hint: CONVERT }
    }
  }
  return isText(bytes) ? { name: 'text', hint: 'make frames of a hex dump with text2pcap' } : null
}

function isText(bytes: Uint8Array): boolean {
  const start = bytes.subarray(0, 512)
  return start.every((byte) => (byte >= 0x20 && byte !== 0x7f) || (byte >= 9 && byte <= 13))
}
