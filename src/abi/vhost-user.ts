/** The vhost-user protocol: message numbers, flags, protocol features, as its specification (QEMU's
 *  docs/interop/vhost-user.rst) names them. All fields are in native byte order. */

/** Header: u32 request, u32 flags, u32 size of the payload. */
export const VHOST_USER_HEADER_LENGTH = 12
export const VHOST_USER_VERSION = 1
export const VHOST_USER_VERSION_MASK = 3
export const VHOST_USER_REPLY_MASK: number = 1 << 2
export const VHOST_USER_NEED_REPLY_MASK: number = 1 << 3

export const VHOST_USER_GET_FEATURES = 1
export const VHOST_USER_SET_FEATURES = 2
export const VHOST_USER_SET_OWNER = 3
export const VHOST_USER_RESET_OWNER = 4
export const VHOST_USER_SET_MEM_TABLE = 5
export const VHOST_USER_SET_LOG_BASE = 6
export const VHOST_USER_SET_LOG_FD = 7
export const VHOST_USER_SET_VRING_NUM = 8
export const VHOST_USER_SET_VRING_ADDR = 9
export const VHOST_USER_SET_VRING_BASE = 10
export const VHOST_USER_GET_VRING_BASE = 11
export const VHOST_USER_SET_VRING_KICK = 12
export const VHOST_USER_SET_VRING_CALL = 13
export const VHOST_USER_SET_VRING_ERR = 14
export const VHOST_USER_GET_PROTOCOL_FEATURES = 15
export const VHOST_USER_SET_PROTOCOL_FEATURES = 16
export const VHOST_USER_GET_QUEUE_NUM = 17
export const VHOST_USER_SET_VRING_ENABLE = 18
export const VHOST_USER_SEND_RARP = 19
export const VHOST_USER_NET_SET_MTU = 20
export const VHOST_USER_GET_MAX_MEM_SLOTS = 36
export const VHOST_USER_ADD_MEM_REG = 37
export const VHOST_USER_REM_MEM_REG = 38
export const VHOST_USER_SET_STATUS = 39
export const VHOST_USER_GET_STATUS = 40

/** Bit numbers. */
export const VHOST_USER_PROTOCOL_F_MQ = 0
export const VHOST_USER_PROTOCOL_F_LOG_SHMFD = 1
export const VHOST_USER_PROTOCOL_F_RARP = 2
export const VHOST_USER_PROTOCOL_F_REPLY_ACK = 3
export const VHOST_USER_PROTOCOL_F_NET_MTU = 4
export const VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15
export const VHOST_USER_PROTOCOL_F_STATUS = 16

/** In the u64 of SET_VRING_KICK, CALL and ERR: the queue's index, and "no descriptor comes". */
export const VHOST_USER_VRING_IDX_MASK = 0xff
export const VHOST_USER_VRING_NOFD_MASK: number = 1 << 8

/** In the flags of SET_VRING_ADDR. */
export const VHOST_VRING_F_LOG = 1

/** Regions in one SET_MEM_TABLE. */
export const VHOST_MEMORY_BASELINE_NREGIONS = 8
/** u64 guest address, u64 size, u64 user address, u64 mmap offset. */
export const MEMORY_REGION_LENGTH = 32
