/**
 * What each error code means and what to do about it: src/errors.md is made of this. A test compares it
 * with the codes that the sources throw.
 */
export interface ErrorCode {
  readonly meaning: string
  readonly fix: string
}

export const ERROR_CODES: Readonly<Record<string, ErrorCode>> = {
  BAD_OPTION: {
    meaning: 'an option is unknown, wrong or contradicts another',
    fix: 'the message names it',
  },
  BAD_ARGUMENT: {
    meaning: 'the command line is wrong: a command, an option, or an argument of `ctl`',
    fix: 'as the message says; `--help`',
  },
  BAD_LINK: {
    meaning: 'a link names a missing port, a wired one, or one twice',
    fix: 'name two different, unwired ports',
  },
  BAD_MIRROR: {
    meaning: 'a mirror selects nothing, contradicts itself or others, or its output is on a link',
    fix: 'the message says what',
  },
  BAD_FILTER: {
    meaning: 'a filter is wrong, or is not a program that can be run over Ethernet frames',
    fix: 'as the message says; pcap-filter(7)',
  },
  FILTER_COMPILER: {
    meaning: 'a filter cannot be compiled here: libpcap is missing, or no process can be started',
    fix: "libpcap, or `filter-program` with what `tcpdump -y EN10MB -ddd 'EXPRESSION'` prints",
  },
  ERSPAN: {
    meaning: 'the socket by which a mirror sends to another host cannot be opened',
    fix: 'CAP_NET_RAW, or a route to the host: the hint says which',
  },
  MIRROR_NOT_FOUND: { meaning: 'no mirror of that name', fix: '`framepump show mirrors`' },
  FDB_ENTRY: {
    meaning: 'a static entry is that of another port, or is not there',
    fix: '`framepump show macs`',
  },
  FDB_FULL: {
    meaning:
      'static entries take all the room that the forwarding database has, or all near an address',
    fix: 'a larger `mac-table-size`, or fewer static entries',
  },
  DUPLICATE_ID: { meaning: 'a port with that id exists', fix: 'choose another id' },
  CONFIG_FILE: { meaning: 'the config file cannot be read', fix: 'check path and permissions' },
  CONFIG_SYNTAX: { meaning: 'it is not YAML', fix: 'correct it at the given line' },
  CONFIG_KEY: {
    meaning: 'a key is unknown or its value wrong',
    fix: 'correct it at the given line',
  },
  NOT_READY: {
    meaning: 'the daemon answers, but has not opened its ports',
    fix: 'its log says what it waits for',
  },
  NO_CONFIG: { meaning: 'reload without a config file', fix: 'start with `--config`' },
  STATE_DIR: {
    meaning: '`state-dir` cannot be written, or others can write to it',
    fix: 'make room and check owner and mode, or name another',
  },
  PORT_NOT_FOUND: { meaning: 'no port of that id', fix: '`framepump show ports`' },
  PORT_CLOSED: { meaning: 'the memory port was removed', fix: 'stop using it' },
  NOT_A_MEMORY_PORT: { meaning: 'the port is of another type', fix: 'use a memory port' },
  FRAME_LENGTH: { meaning: 'a frame to send is too short or long', fix: '14 to 65549 bytes' },
  TAP_NODE: { meaning: 'the TUN device cannot be opened', fix: '`framepump doctor`' },
  TAP_SETIFF: {
    meaning: 'the kernel refused the name',
    fix: 'busy, no permission, or another queue mode: the hint says which',
  },
  TAP_FEATURE: {
    meaning: 'the kernel lacks what was required',
    fix: 'drop `vnet_hdr=on` or `queues`',
  },
  TAP_FD: { meaning: 'a given descriptor is not a TAP', fix: 'give one that is' },
  TAP_HELD: {
    meaning: 'another process still has queues of an interface that is taken over',
    fix: 'stop it, then repeat the command',
  },
  TAP_MISSING: {
    meaning: 'a persistent interface that is taken over does not exist',
    fix: 'make it, or drop `persist`',
  },
  TAP_IOCTL: { meaning: 'a set-up call failed', fix: 'the message names it' },
  TAP_SCRIPT: { meaning: 'a script cannot be run or failed', fix: 'fix the script' },
  TAP_HELPER: { meaning: 'the bridge helper failed', fix: 'run it by hand' },
  TAP_VNET_HDR_SIZE: {
    meaning: 'a given TAP has an odd vnet_hdr size',
    fix: '10 to 24 bytes, even',
  },
  RAW_SOCKET: {
    meaning: 'a packet socket cannot be opened or set up',
    fix: 'CAP_NET_RAW; the hint says what else',
  },
  RAW_SOCKET_INTERFACE: {
    meaning: 'there is no such interface, or none that a raw socket can use',
    fix: 'another `ifname`',
  },
  RAW_SOCKET_FD: {
    meaning: 'a given descriptor is not the packet socket that it should be',
    fix: 'as the message says',
  },
  LOOP: { meaning: 'two ports would have the two sides of one interface', fix: 'another `ifname`' },
  NETNS: {
    meaning: 'no such namespace, or it cannot be entered',
    fix: 'check the name; needs CAP_SYS_ADMIN',
  },
  LINK: {
    meaning: 'an interface cannot be looked up or changed',
    fix: 'needs CAP_NET_ADMIN there',
  },
  VHOST_USER_SOCKET: {
    meaning: 'the socket cannot be made, or somebody else or another port listens there',
    fix: 'check path and permissions',
  },
  VHOST_USER_PROTOCOL: {
    meaning: 'a front-end broke the protocol; its connection ends',
    fix: 'the log says how',
  },
  VHOST_USER_WINDOWS: {
    meaning: 'a guest has more memory, or in more regions, than its port’s share of windows',
    fix: 'fewer regions; `vm.max_map_count` 65530 or more',
  },
  VHOST_USER_MEMORY: {
    meaning: "a guest's memory cannot be mapped",
    fix: 'share it: `share=on`; from memory or a local disk',
  },
  VHOST_USER_ACKED: {
    meaning:
      'a running guest uses what the port does not offer any more, or its stored state is damaged',
    fix: 'as the hint says',
  },
  DEVICE_STATE: {
    meaning: 'a saved device is damaged, or of another device',
    fix: 'the message names the field',
  },
  VIRTIO_NET: {
    meaning: 'the driver side was used in a way that does not fit its state',
    fix: 'the message says how',
  },
  CAPTURE_FILE: {
    meaning: 'a capture file cannot be opened, or a port or a capture uses it already',
    fix: 'check path and permissions, or give another file',
  },
  CAPTURE_FORMAT: {
    meaning: 'a file to replay is damaged or not a capture',
    fix: 'the message says at which byte',
  },
  CAPTURE_INTERFACES: { meaning: 'more than 4096 ports in one capture', fix: 'start a new one' },
  CAPTURE_LOST: { meaning: 'the daemon ended during the capture', fix: 'restart both' },
  NO_CAPTURE: { meaning: 'no capture of that number', fix: '`query-captures`' },
  TOO_MANY_CAPTURES: { meaning: '16 captures are running', fix: 'end one first' },
  TOO_MANY_PORTS: { meaning: 'the switch has 1024 ports', fix: 'remove one first' },
  INCOMING: {
    meaning: '`migrate-incoming` or `cont` at the wrong time, or without `--incoming`',
    fix: 'the message says what comes first',
  },
  HAND_OVER: {
    meaning:
      'the switch, or a port of it, cannot be handed over or gone on with; or it was cancelled',
    fix: 'the message names what; a port may be left out (`exclude`)',
  },
  HAND_OVER_CHANNEL: {
    meaning:
      'what a hand-over goes by cannot be had, carries no descriptors, or says what is not known',
    fix: 'connect both directly, by a UNIX socket, as the same user',
  },
  SWITCH_CLOSED: { meaning: 'the switch was closed, or handed over', fix: 'make a new one' },
  ENGINE: { meaning: 'the engine could not do a request', fix: 'report it' },
  ENGINE_FAILED: {
    meaning: 'the engine thread died; the switch is closed',
    fix: 'make a new one, and report it',
  },
  IO_THREAD_FAILED: {
    meaning: 'the thread of the sockets died; the switch is closed',
    fix: 'make a new one, and report it',
  },
  IO_URING_UNAVAILABLE: {
    meaning: '`io_uring-multishot` was forced and cannot be used',
    fix: '`--io auto`; the message says why',
  },
  SHIM_NOT_LOADED: {
    meaning: 'the native shim cannot be loaded, or built',
    fix: '`apt-get install gcc libc6-dev`, or as the hint says',
  },
  DESCRIPTOR_SHARE: {
    meaning: 'a port, or another front-end of one, may need more descriptors than the limit leaves',
    fix: 'raise `ulimit -n` (`LimitNOFILE=`), or give fewer queues',
  },
  OUT_OF_MEMORY: { meaning: 'memory ran out', fix: 'free some, or raise the limit' },
  OUT_OF_RESOURCES: {
    meaning: 'descriptors, or another resource of the kernel, ran out',
    fix: 'raise the limit (`ulimit -n`, `LimitNOFILE=`)',
  },
  CONTROL_SOCKET: {
    meaning: 'the control socket cannot be made',
    fix: 'check path and permissions, or give another `--control`',
  },
  CONTROL_IN_USE: {
    meaning: 'another daemon has the control socket, or a file is there that is not a socket',
    fix: 'another `--control`',
  },
  PRIVILEGES: {
    meaning: 'the user is unknown or cannot be taken, or what was asked for cannot be given up',
    fix: 'the message says why; `--privileges off` does without',
  },
  PRIVILEGE_DROPPED: {
    meaning: 'what this needs was given up at the end of the start',
    fix: 'name the port in the config, or `keep` it',
  },
  CONTROL_ERROR: {
    meaning: 'a daemon refused a command without a code, or its answer is malformed',
    fix: "the message is the daemon's",
  },
  DAEMON_UNREACHABLE: {
    meaning: 'nobody answers on the control socket',
    fix: 'start a daemon, or give its `--control`',
  },
  NO_FD: { meaning: 'a descriptor was not given, or not under that name', fix: '`getfd` first' },
  QMP_SYNTAX: {
    meaning: 'the request is not JSON, or not an object with `execute`',
    fix: 'as the message says',
  },
  QMP_COMMAND: { meaning: 'there is no such command', fix: '`query-commands`' },
  QMP_ARGUMENT: {
    meaning: 'an argument of the command is missing, unknown or wrong',
    fix: 'as the message says; `query-commands`',
  },
  MACHINE_LACKS: {
    meaning: 'a program, device or permission is missing',
    fix: 'install or allow it',
  },
}
