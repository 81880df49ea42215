/**
 * io_uring constants and struct layouts. linux/io_uring.h (6.18); some are newer than Debian 12's
 * headers, therefore they are written down here. Offsets are bytes.
 */
export const IORING_SETUP_CQSIZE = 0x8
/** Nothing can be submitted before IORING_REGISTER_ENABLE_RINGS. */
export const IORING_SETUP_R_DISABLED = 0x40
export const IORING_SETUP_TASKRUN_FLAG = 0x200
/** Linux 6.0 */
export const IORING_SETUP_SINGLE_ISSUER = 0x1000
/** Linux 6.1 */
export const IORING_SETUP_DEFER_TASKRUN = 0x2000
/** Linux 6.6 */
export const IORING_SETUP_NO_SQARRAY = 0x10000

export const IORING_FEAT_SINGLE_MMAP = 0x1
/** Linux 5.17: IOSQE_CQE_SKIP_SUCCESS */
export const IORING_FEAT_CQE_SKIP = 0x800

export const IORING_OFF_SQ_RING = 0
export const IORING_OFF_SQES = 0x10000000

export const IORING_ENTER_GETEVENTS = 1

export const IORING_SQ_CQ_OVERFLOW = 0x2
export const IORING_SQ_TASKRUN = 0x4

export const IORING_REGISTER_PROBE = 8
/** Linux 5.10, both. */
export const IORING_REGISTER_RESTRICTIONS = 11
export const IORING_REGISTER_ENABLE_RINGS = 12
export const IORING_REGISTER_PBUF_RING = 22
export const IORING_UNREGISTER_PBUF_RING = 23

export const IO_URING_OP_SUPPORTED = 1

export const IORING_OP_WRITEV = 2
export const IORING_OP_POLL_ADD = 6
export const IORING_OP_ASYNC_CANCEL = 14
export const IORING_OP_WRITE = 23
export const IORING_OP_SEND = 26
/** Linux 6.7 */
export const IORING_OP_READ_MULTISHOT = 49

export const IORING_POLL_ADD_MULTI = 1

export const IOSQE_BUFFER_SELECT = 0x20
export const IOSQE_CQE_SKIP_SUCCESS = 0x40

export const IORING_CQE_F_MORE = 0x2
export const IORING_CQE_BUFFER_SHIFT = 16

/** struct io_uring_restriction (16 bytes): u16 opcode, u8 operation or flags, u8, u32[3]. */
export const RESTRICTION_LENGTH = 16
export const RESTRICTION_OPERAND = 2
export const IORING_RESTRICTION_REGISTER_OP = 0
export const IORING_RESTRICTION_SQE_OP = 1
export const IORING_RESTRICTION_SQE_FLAGS_ALLOWED = 2

/** uapi/linux/fs.h */
export const RWF_NOWAIT = 8

/** struct io_uring_params: 120 bytes; all fields used here are u32. */
export const URING_PARAMS_LENGTH = 120
export const URING_PARAMS_SQ_ENTRIES = 0
export const URING_PARAMS_CQ_ENTRIES = 4
export const URING_PARAMS_FLAGS = 8
export const URING_PARAMS_FEATURES = 20
export const URING_PARAMS_SQ_OFF_TAIL = 44
export const URING_PARAMS_SQ_OFF_HEAD = 40
export const URING_PARAMS_SQ_OFF_FLAGS = 56
export const URING_PARAMS_CQ_OFF_HEAD = 80
export const URING_PARAMS_CQ_OFF_TAIL = 84
export const URING_PARAMS_CQ_OFF_CQES = 100

/** struct io_uring_sqe (64 bytes) as 32-bit words. */
export const SQE_WORDS = 16
export const SQE_OPCODE_FLAGS = 0
export const SQE_FD = 1
export const SQE_ADDR = 4
export const SQE_LEN = 6
/** rw_flags, poll32_events, cancel_flags */
export const SQE_OP_FLAGS = 7
export const SQE_USER_DATA = 8
export const SQE_BUF_GROUP = 10

/** struct io_uring_cqe (16 bytes) as 32-bit words: user_data low, high, res, flags. */
export const CQE_WORDS = 4
export const CQE_LENGTH = 16

/** struct io_uring_buf (16 bytes): u64 addr, u32 len, u16 bid, u16 (tail in the first entry). */
export const BUF_WORDS = 4
export const BUF_LENGTH = 16
/** The ring's tail overlays the reserved u16 of entry 0: its index in u16 units. */
export const BUF_RING_TAIL_U16 = 7

/** struct io_uring_buf_reg: u64 ring_addr, u32 ring_entries, u16 bgid, u16 flags, u64 resv[3]. */
export const BUF_REG_LENGTH = 40

/** struct io_uring_probe: u8 last_op, u8 ops_len, then from 16 on 8 bytes per operation. */
export const PROBE_OPS = 16
export const PROBE_OP_LENGTH = 8
export const PROBE_OP_FLAGS = 2
export const PROBE_OPS_MAX = 256
