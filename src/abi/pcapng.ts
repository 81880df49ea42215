/** pcapng and pcap constants. draft-ietf-opsawg-pcapng-03; draft-ietf-opsawg-pcap-06 */
export const SECTION_HEADER_BLOCK = 0x0a0d0d0a
export const INTERFACE_DESCRIPTION_BLOCK = 0x00000001
export const PACKET_BLOCK = 0x00000002
export const SIMPLE_PACKET_BLOCK = 0x00000003
export const INTERFACE_STATISTICS_BLOCK = 0x00000005
export const ENHANCED_PACKET_BLOCK = 0x00000006
export const BYTE_ORDER_MAGIC = 0x1a2b3c4d

export const OPT_ENDOFOPT = 0
export const SHB_USERAPPL = 4
export const IF_NAME = 2
export const IF_DESCRIPTION = 3
export const IF_TSRESOL = 9
export const IF_TSOFFSET = 14
export const EPB_FLAGS = 2
export const ISB_STARTTIME = 2
export const ISB_ENDTIME = 3
export const ISB_IFRECV = 4
export const ISB_IFDROP = 5

/** Direction bits of epb_flags. */
export const EPB_FLAG_INBOUND = 1
export const EPB_FLAG_OUTBOUND = 2

export const LINKTYPE_ETHERNET = 1

export const PCAP_MAGIC_US = 0xa1b2c3d4
export const PCAP_MAGIC_NS = 0xa1b23c4d
export const PCAP_HEADER_LENGTH = 24
export const PCAP_RECORD_LENGTH = 16
