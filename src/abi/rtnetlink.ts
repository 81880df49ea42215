/** rtnetlink messages about links. rtnetlink(7); linux/rtnetlink.h, linux/if_link.h */
export const NLMSG_HEADER_LENGTH = 16
export const IFINFO_LENGTH = 16

export const NLMSG_ERROR = 2
export const RTM_NEWLINK = 16
export const RTM_GETLINK = 18
export const RTM_SETLINK = 19

export const NLM_F_REQUEST = 1
export const NLM_F_ACK = 4
/** On an NLMSG_ERROR: only the header of the request is echoed. */
export const NLM_F_CAPPED = 0x100
export const NLM_F_DUMP = 0x300

export const IFF_UP = 1

export const IFLA_IFNAME = 3
export const IFLA_MTU = 4
export const IFLA_LINKINFO = 18
export const IFLA_INFO_KIND = 1
export const IFLA_INFO_DATA = 2
export const IFLA_TUN_NUM_QUEUES = 8
export const IFLA_TUN_NUM_DISABLED_QUEUES = 9

export const NLMSGERR_ATTR_MSG = 1
