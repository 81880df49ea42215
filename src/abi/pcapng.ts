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
export const IF_FCSLEN = 13
export const IF_TSOFFSET = 14
export const EPB_FLAGS = 2
export const ISB_STARTTIME = 2
export const ISB_ENDTIME = 3
export const ISB_IFRECV = 4
export const ISB_IFDROP = 5

/** Of epb_flags: length of the FCS in bytes; 0: as the interface says. */
export const EPB_FLAG_FCS_SHIFT = 5
export const EPB_FLAG_FCS_MASK = 0xf

/** Direction bits of epb_flags. */
export const EPB_FLAG_INBOUND = 1
export const EPB_FLAG_OUTBOUND = 2

export const LINKTYPE_ETHERNET = 1

export const PCAP_MAGIC_US = 0xa1b2c3d4
export const PCAP_MAGIC_NS = 0xa1b23c4d
/** Kuznetsov's patch: microseconds, and 8 bytes more in each record header. */
export const PCAP_MAGIC_MODIFIED = 0xa1b2cd34
/** Of other vendors, with headers of their own. */
export const PCAP_MAGIC_IXIA_HARDWARE = 0x1c0001ac
export const PCAP_MAGIC_IXIA_SOFTWARE = 0x1c0001ab
export const PCAP_MAGIC_NAVTEL = 0xa12b3c4d
export const PCAP_HEADER_LENGTH = 24
export const PCAP_RECORD_LENGTH = 16
export const PCAP_MODIFIED_RECORD_LENGTH = 24
/** The field of the link type: the type, a bit that says that the FCS length is there, and that. */
export const PCAP_LINKTYPE_MASK = 0x03ff_ffff
export const PCAP_HAS_FCS_LENGTH = 0x0400_0000
/** In units of two bytes. */
export const PCAP_FCS_LENGTH_SHIFT = 28
