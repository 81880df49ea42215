/**
 * The native shim: its whole surface, and the only place that loads it.
 *
 * Every function returns a value >= 0 or `-errno`; it throws a TypeError only for a wrong argument
 * type. A string that is too long is -ENAMETOOLONG, one with a NUL inside -EINVAL. Nothing here has policy: no defaults, no retries but EINTR, no logging.
 *
 * Memory crosses the boundary in two ways only:
 * - a *window*: mapped memory under 2 GiB, known to the shim by a small number, valid in every
 *   thread of the process. Offsets and lengths are bytes from its start; each row of a table is
 *   checked against its window, so a wrong row stops the call and touches nothing;
 * - a typed array that the caller owns, for control-plane structs.
 *
 * "Absent" is always -1 (numbers) or null, never undefined.
 */
import { openSync, writeSync } from 'node:fs'
import { SysError } from '../errors.ts'
import { loadShim } from './load.ts'

/** Flags of {@link Shim.windowMap}. */
export const WINDOW_MIRRORED = 1
export const WINDOW_READ_ONLY = 2
export const WINDOW_DONT_DUMP = 4

/** Bytes of one row in the tables that a shim call executes; every field is an int32. */
export const COPY_ROW_INTS = 5
export const COPY_BEHIND_HEADER: number = 1 << 30
export const COPY_BEHIND_HEAD: number = 1 << 29
export const COPY_BEHIND_TAG: number = 1 << 28
export const COPY_SAME_HEAD: number = 1 << 27
export const CHECKSUM_ROW_INTS = 5
export const READ_ROW_INTS = 4
export const WRITE_ROW_INTS = 4
export const SEGMENT_INTS = 3
export const EPOLL_ROW_INTS = 2
export const DIRTY_ROW_INTS = 2
export const FILTER_ROW_INTS = 3
export const THREAD_ROW_INTS = 7

export interface Shim {
  // --- windows: mapped memory, numbered for the whole process -------------------------------
  /**
   * mmap(2). `fd` -1 maps anonymous shared memory (touched pages only become resident).
   * `fileOffset` must be a multiple of the page size. WINDOW_MIRRORED maps the same pages twice,
   * one after the other (needs a fd and fileOffset 0; the window is then 2 * length long): a ring
   * that never wraps.
   * WINDOW_DONT_DUMP leaves its memory out of a core dump (MADV_DONTDUMP).
   * Returns the window's number, -EMFILE when the table is full.
   */
  windowMap(fd: number, length: number, fileOffset: number, flags: number): number
  /** An ArrayBuffer over the window for the calling thread, or -errno. One per thread and window. */
  windowBuffer(window: number): ArrayBuffer | number
  /**
   * The same over `length` bytes from `offset` on, -EFAULT when they are not in the window. V8 takes
   * the length of a buffer for memory that collecting garbage may free, and collects every 64 MiB: a
   * window of a guest, of which only the rings are read here, is looked at in such parts.
   */
  windowPart(window: number, offset: number, length: number): ArrayBuffer | number
  /** Detaches an ArrayBuffer of windowBuffer or windowPart in the calling thread; it has length 0 afterwards. */
  windowDetach(buffer: ArrayBuffer): number
  /** munmap(2) at once. Every thread has detached its ArrayBuffer before. */
  windowUnmap(window: number): number
  /** Address of the window's first byte (< 2^53), for io_uring entries. */
  windowAddress(window: number): number
  /** Length of the window in bytes (mirrored: both halves). */
  windowLength(window: number): number
  /** Times that SIGBUS replaced the window by an empty one since the last call: the file behind it was
   *  truncated. More than 1 when several threads touched it at once. */
  windowFaults(window: number): number
  /** An ArrayBuffer of one int32 for the calling thread: the same so far, of all windows. */
  windowFaultCounter(): ArrayBuffer | number

  // --- bulk memory: tables in a window, filled in TypeScript --------------------------------
  /** Rows (source window, source offset, destination window, destination offset, length).
   *  Returns the rows done; fewer than asked: the row at that index left its windows. Rows run in
   *  order; source and destination of a row may overlap (memmove). Prefetches rows ahead. A length
   *  with COPY_BEHIND_HEADER added (it is below COPY_BEHIND_HEAD) goes behind 12 bytes, written first at the
   *  destination: a struct virtio_net_hdr_v1 without offloads, num_buffers 1. VIRTIO 1.3 §5.1.6. One with
   *  COPY_BEHIND_HEAD added (it is below COPY_SAME_HEAD) goes behind 16 bytes, those of a header before them: the
   *  first four words of the next row, which is no copy; with COPY_BEHIND_TAG on top of that behind all five.
   *  With COPY_SAME_HEAD as well there is no such row: they are those of the last one in this call. */
  copyRows(tableWindow: number, tableOffset: number, rowCount: number): number
  /** Two columns of int32 in a window, one of windows and one of offsets: writes 16 bytes at each of
   *  these places, from `skip` bytes behind it on, into the destination, packed at 16 bytes a place
   *  (zero-filled past the window's end). All sources are prefetched first. Returns the places done; fewer than asked: the
   *  one at that index left its window. */
  gatherHeads(
    columnWindow: number,
    windowsOffset: number,
    offsetsOffset: number,
    count: number,
    destinationWindow: number,
    destinationOffset: number,
    skip: number,
  ): number
  /** Three columns of int32 in a window, of windows, offsets and lengths: copies the first `most` bytes
   *  (0..256) at each of these places, or as many as its length says, into the destination, 256 bytes a
   *  place (which may have other bytes behind them). With a `headsOffset` in the columns' window, not -1, the
   *  first 16 of them go there as well, packed and zero-filled, and the columns say of what was copied whole
   *  that it is in the destination. Returns how many were copied whole, or -EFAULT: one of them left its
   *  window. */
  gatherFrames(
    columnWindow: number,
    windowsOffset: number,
    offsetsOffset: number,
    lengthsOffset: number,
    count: number,
    destinationWindow: number,
    destinationOffset: number,
    most: number,
    headsOffset: number,
  ): number
  /** Of `count` rows of 64 bytes, `stride` bytes (64..256) from one to the next, and a table of an int32 for each:
   *  how many of the first ones are like the first in all bits that the 64 bytes of the mask have, and in their
   *  number. */
  alikeRows(
    window: number,
    offset: number,
    stride: number,
    count: number,
    maskWindow: number,
    maskOffset: number,
    numbersWindow: number,
    numbersOffset: number,
  ): number
  /** Rows (window, offset, length, initial, result): result is the folded 16-bit ones' complement
   *  sum (not inverted) in network order of the bytes plus `initial`. RFC 1071. */
  checksumRows(tableWindow: number, tableOffset: number, rowCount: number): number
  /** Rows (first page, pages >= 1): sets the bits of these pages in the bitmap that the log window
   *  is (page p: bit p % 8 of byte p / 8) by an atomic OR. Returns the rows done; fewer than asked:
   *  the row at that index left the window. */
  markDirty(logWindow: number, tableWindow: number, tableOffset: number, rowCount: number): number

  // --- filters: classic BPF ----------------------------------------------------------------------
  /** Looks through a program: pairs of int32 that are a struct sock_filter each (code | jt << 16 | jf << 24,
   *  k). Returns how many of its instructions, from the first on, could be run; fewer than it has, or none of a
   *  program that is empty or has more than BPF_MAXINSNS: it is not sound. linux/filter.h; what the kernel knows
   *  of a packet besides its bytes (SKF_AD_OFF and its like) is not there. */
  filterCheck(program: Int32Array): number
  /** Runs it over rows (first segment, segment count 1..72, result); segments are as those of writeFrames.
   *  Result: 1, the program returns more than 0, or 0. Returns the rows done; fewer than asked: the row at that
   *  index left its windows; -EINVAL: the program is not sound. */
  filterFrames(
    program: Int32Array,
    tableWindow: number,
    tableOffset: number,
    rowCount: number,
    segmentOffset: number,
  ): number
  /** pcap_compile(3) for Ethernet of a text of at most 65535 bytes. Returns the instructions that stand in
   *  `program`; -EINVAL: what is wrong is in `message`, terminated by a NUL; -E2BIG: there is no room; -ENOSYS:
   *  libpcap is not loaded, which is done before the shim is, by LD_PRELOAD. */
  filterCompile(text: string, program: Int32Array, message: Uint8Array): number

  // --- frames through descriptors ------------------------------------------------------------
  /** read(2) per row (window, offset, capacity, result) until EAGAIN, an error or the last row;
   *  result = bytes, or -EINVAL or -EFAULT for a frame that was lost because the kernel could not
   *  write its vnet_hdr. Returns rows filled, or -errno when the first read failed otherwise. */
  readFrames(fd: number, tableWindow: number, tableOffset: number, rowCount: number): number
  /** write(2)/writev(2) per row (fd, first segment, segment count 1..64, result = bytes or -errno);
   *  segments are (window, offset, length) rows in the same window at segmentOffset. A row that
   *  fails does not stop the others. Returns the rows that were written whole. */
  writeFrames(
    tableWindow: number,
    tableOffset: number,
    rowCount: number,
    segmentOffset: number,
  ): number
  /** As writeFrames, for sockets: rows of one that follow each other are one sendmmsg(2), MSG_DONTWAIT. */
  sendFrames(
    tableWindow: number,
    tableOffset: number,
    rowCount: number,
    segmentOffset: number,
  ): number
  /**
   * The same by Linux AIO: one io_submit(2) and one io_getevents(2) for up to 256 rows of a non-blocking
   * descriptor whose reads end at once. The context's number comes in halves, as one number it would
   * be an allocation. Rows may change places. Returns rows filled, or -errno when none is; -EOPNOTSUPP:
   * this kernel does not do the requests at once and in order, or a sandbox forbids it, what was read is
   * lost, and the context must not be used again.
   */
  aioReadFrames(
    contextLow: number,
    contextHigh: number,
    fd: number,
    tableWindow: number,
    tableOffset: number,
    rowCount: number,
  ): number
  /** As writeFrames, for non-blocking descriptors whose writes end at once. -EOPNOTSUPP: as above;
   *  nothing is known of rows whose result is -ECANCELED. */
  aioWriteFrames(
    contextLow: number,
    contextHigh: number,
    tableWindow: number,
    tableOffset: number,
    rowCount: number,
    segmentOffset: number,
  ): number
  /** read(2) into a window. */
  readInto(fd: number, window: number, offset: number, length: number): number
  /** pread(2) into a window; fewer bytes than asked: the file ends there. */
  preadInto(fd: number, window: number, offset: number, length: number, fileOffset: number): number
  /** write(2) from a window; with nowait 1 pwritev2(RWF_NOWAIT) at the current position, so that a
   *  full pipe answers -EAGAIN whatever its flags (where unsupported: at most 4096 bytes, once
   *  poll(2) says that they fit). */
  writeFrom(fd: number, window: number, offset: number, length: number, nowait: number): number

  // --- descriptors and time ------------------------------------------------------------------
  /** open(2); mode is 0600. O_CLOEXEC is the caller's to pass. */
  open(path: string, flags: number): number
  close(fd: number): number
  /** fcntl(F_GETFL) / fcntl(F_SETFL). */
  getStatusFlags(fd: number): number
  setStatusFlags(fd: number, flags: number): number
  /** F_GET_SEALS: -EINVAL for whatever is not memory (memfd, tmpfs, hugetlbfs). Never waits. */
  getSeals(fd: number): number
  /** flock(2). */
  flock(fd: number, operation: number): number
  /**
   * statx(2): major number of the device that holds the file, 0: none (network file systems and those
   * of FUSE among them). Asks no server, so it never waits.
   */
  deviceMajor(fd: number): number
  memfdCreate(name: string, flags: number): number
  ftruncate(fd: number, length: number): number
  /** fstat(2): bytes of a file, below 2^53. */
  fileSize(fd: number): number
  eventfd(initial: number, flags: number): number
  /** Adds 1. */
  eventfdWrite(fd: number): number
  /** Returns the count read (then 0 in the kernel), -EAGAIN when it was 0. */
  eventfdRead(fd: number): number
  /** io_setup(2) for so many requests; returns the context, a number below 2^53. */
  aioSetup(requests: number): number
  /** io_destroy(2). */
  aioDestroy(context: number): number
  /**
   * io_submit(2) of one request that completes at once and has the kernel add 1 to the eventfd. It
   * never waits: a full counter stays as it is. -EINVAL: no eventfd; -EAGAIN: `aioReap` first.
   */
  aioSignal(context: number, fd: number): number
  /** io_getevents(2): forgets up to 256 completions, does not wait for any; returns how many. */
  aioReap(context: number): number
  epollCreate(): number
  /** op and events as in epoll_ctl(2); data comes back in epollWait. */
  epollCtl(epfd: number, op: number, fd: number, events: number, data: number): number
  /** Writes rows (events, data) of int32 at the offset; returns the rows. -1 waits for ever. */
  epollWait(
    epfd: number,
    window: number,
    offset: number,
    maxRows: number,
    timeoutMs: number,
  ): number
  /** poll(2) of one descriptor; returns revents, 0 on time-out. */
  poll(fd: number, events: number, timeoutMs: number): number
  /** Writes at the offset (multiple of 8): float64 CLOCK_MONOTONIC in microseconds, then u32 low
   *  and u32 high of CLOCK_REALTIME in nanoseconds, then its u32 seconds and u32 nanoseconds of
   *  the second. 24 bytes. */
  clockGettime(window: number, offset: number): number

  /** _exit(2): ends the process at once, whatever its threads wait for. */
  exit(status: number): never
  /** pidfd_open(2): a descriptor, CLOEXEC, that can be read (POLLIN) once the process has ended. */
  pidfdOpen(pid: number): number
  /** pidfd_getfd(2): a copy, CLOEXEC, of a descriptor of that process. */
  pidfdGetfd(pidfd: number, fd: number): number

  // --- sockets -------------------------------------------------------------------------------
  /** AF_UNIX, CLOEXEC | NONBLOCK; type as in socket(2). */
  socketUnix(type: number): number
  /** AF_UNIX pair of `type`, CLOEXEC, blocking; fds[0], fds[1]. */
  socketPair(type: number, fds: Int32Array): number
  bindUnix(fd: number, path: string): number
  connectUnix(fd: number, path: string): number
  /** connect(2) to an abstract name: without the NUL before it, at most 107 bytes. */
  connectAbstract(fd: number, name: string): number
  listen(fd: number, backlog: number): number
  /** accept4(2), CLOEXEC | NONBLOCK. */
  accept(fd: number): number
  /** SO_PEERCRED into pid, uid, gid. */
  peerCredentials(fd: number, out: Int32Array): number
  /** shutdown(2). */
  shutdown(fd: number, how: number): number
  /** recvmsg(2) with MSG_CMSG_CLOEXEC. Bytes into `data`, descriptors into `fds`; info[0] = count
   *  of descriptors (those beyond fds.length are closed), info[1] = msg_flags. Returns bytes. */
  recvMsg(fd: number, data: Uint8Array, fds: Int32Array, info: Int32Array, flags: number): number
  /** sendmsg(2) with MSG_NOSIGNAL: `length` bytes of data from offset, fdCount descriptors. */
  sendMsg(
    fd: number,
    data: Uint8Array,
    offset: number,
    length: number,
    fds: Int32Array | null,
    fdCount: number,
    flags: number,
  ): number

  /** bind(2) of a packet socket: frames of the EtherType (host byte order) at that interface. */
  bindPacket(fd: number, protocol: number, ifindex: number): number
  /** getsockname(2) of a packet socket into protocol (host byte order), ifindex (0: any, -1: it is
   *  gone), ARPHRD_* type. -EAFNOSUPPORT: a socket of another family. packet(7) */
  packetName(fd: number, out: Int32Array): number
  /** Raw socket of IP for GRE, of AF_INET or AF_INET6: what is sent stands behind the kernel's IP header.
   *  CLOEXEC | NONBLOCK. raw(7) */
  socketGre(family: number): number
  /** connect(2) to an IPv4 or IPv6 address of 4 or 16 bytes, port and scope 0; of none: to nobody. */
  connectIp(fd: number, address: Uint8Array): number
  /** getsockopt(2): up to value.length bytes, in host byte order; returns how many. */
  getSocketOption(fd: number, level: number, name: number, value: Uint8Array): number
  /** setsockopt(2). */
  setSocketOption(fd: number, level: number, name: number, value: Uint8Array): number

  // --- network namespaces and netlink ---------------------------------------------------------
  /** NETLINK_ROUTE socket of the namespace behind netnsFd (-1: the caller's): setns, socket,
   *  setns back in one call. CLOEXEC, bound, SO_RCVTIMEO 2 s. Used with sendMsg and recvMsg. */
  netlinkRoute(netnsFd: number): number
  /** The socket is told of what happens in this multicast group, RTNLGRP_*. */
  netlinkJoin(fd: number, group: number): number
  /** AF_PACKET, SOCK_RAW socket of the namespace behind netnsFd (-1: the caller's), as one call.
   *  Protocol 0: it receives nothing until it is bound. CLOEXEC | NONBLOCK. packet(7) */
  socketPacket(netnsFd: number): number
  /** setns to netnsFd (-1: stay), open(path), TUNSETIFF(name, flags), setns back, as one call.
   *  The kernel's name goes to nameOut (16 bytes). Returns the fd; O_CLOEXEC | O_NONBLOCK.
   *  stageOut[0]: 0 setns, 1 open, 2 TUNSETIFF, 3 done: where a failure happened. */
  tunOpen(
    netnsFd: number,
    path: string,
    name: string,
    flags: number,
    nameOut: Uint8Array,
    stageOut: Int32Array,
  ): number

  // --- TUN/TAP ioctls (linux/if_tun.h) ---------------------------------------------------------
  tunGetFeatures(fd: number): number
  /** Returns the flags; the current name goes to nameOut (16 bytes). */
  tunGetIff(fd: number, nameOut: Uint8Array): number
  tunSetOffload(fd: number, offloads: number): number
  tunGetVnetHdrSize(fd: number): number
  tunSetVnetHdrSize(fd: number, size: number): number
  tunGetSndbuf(fd: number): number
  tunSetSndbuf(fd: number, bytes: number): number
  /** IFF_ATTACH_QUEUE or IFF_DETACH_QUEUE. */
  tunSetQueue(fd: number, flags: number): number
  tunSetPersist(fd: number, on: number): number
  tunSetOwner(fd: number, uid: number): number
  tunSetGroup(fd: number, gid: number): number
  tunSetCarrier(fd: number, on: number): number
  /** A descriptor of the network namespace in which the device lives. */
  tunGetDevNetns(fd: number): number

  // --- io_uring --------------------------------------------------------------------------------
  /** io_uring_setup(2); params is struct io_uring_params (120 bytes), read and written. */
  uringSetup(entries: number, params: Uint8Array): number
  /** io_uring_enter(2). timeoutUs -1: none; else IORING_ENTER_EXT_ARG with that time-out. */
  uringEnter(
    fd: number,
    toSubmit: number,
    minComplete: number,
    flags: number,
    timeoutUs: number,
  ): number
  /** io_uring_register(2) for PROBE, PBUF_RING and its UNREGISTER, RESTRICTIONS; the argument lies in
   *  a window. ENABLE_RINGS has none: window -1. */
  uringRegister(
    fd: number,
    opcode: number,
    argWindow: number,
    argOffset: number,
    count: number,
  ): number

  // --- what the process may do -----------------------------------------------------------------
  /** prctl(2) for the operations of capabilities, dumpable, no_new_privs and seccomp; else
   *  -EOPNOTSUPP. Of the calling thread. */
  prctl(option: number, a: number, b: number, c: number, d: number): number
  /** capget(2) of the calling thread: effective, permitted, inheritable, each low half first. */
  capget(out: Int32Array): number
  /** capset(2) of the calling thread, from the same six words. */
  capset(words: Int32Array): number
  /** seccomp(2), SET_MODE_FILTER (`argument`: struct sock_filter, 8 bytes each) and
   *  GET_ACTION_AVAIL (a u32). With TSYNC a positive result is a thread that cannot follow. */
  seccomp(operation: number, flags: number, argument: Uint8Array): number
  /** Has every thread but the calling one make the calls of rows (0: prctl, its arguments; 1:
   *  capset, its words), each in a signal handler; those of io_uring, which are the kernel's,
   *  are left out. Returns how many did; out[0] = calls that failed, out[1] = errno of the last,
   *  out[2] = threads left out. -ETIMEDOUT: a thread did not, and setuid(2) must not be used. */
  everyThread(rows: Int32Array, out: Int32Array): number
}

/** Each call goes to a file, when one is named: its name, its numbers, its result. */
function traced(loaded: Shim, path: string): Shim {
  const fd = openSync(path, 'a')
  const calls = Object.entries(loaded).map(
    ([name, call]: [string, (...args: unknown[]) => unknown]) => [
      name,
      (...args: unknown[]) => {
        const result = call(...args)
        const numbers = args.filter((each) => typeof each === 'number')
        writeSync(fd, `${[name, ...numbers].join(' ')} = ${String(result)}\n`)
        return result
      },
    ],
  )
  return Object.fromEntries(calls) as Shim
}

/** Every use says why there is no shim: what needs none (help, doctor) works without. */
function absent(failure: SysError): Shim {
  const fail = (): never => {
    throw failure
  }
  return new Proxy({} as Shim, { get: fail })
}

function load(): { shim: Shim; path: string; failure?: SysError } {
  try {
    const { functions, path } = loadShim()
    const tracePath = process.env['FRAMEPUMP_TRACE']
    const plain = functions as Shim
    return { shim: tracePath === undefined ? plain : traced(plain, tracePath), path }
  } catch (error) {
    if (!(error instanceof SysError) || error.code !== 'SHIM_NOT_LOADED') throw error
    return { shim: absent(error), path: '', failure: error }
  }
}

const loaded = load()

/** The loaded shim. Native addons are context-aware: every thread that imports this gets its own. */
export const shim: Shim = loaded.shim
/** The file that it came from. */
export const shimPath: string = loaded.path
/** Why there is none. */
export const shimFailure: SysError | undefined = loaded.failure
