/**
 * Watches the interfaces behind ports: each network namespace that has some gives one rtnetlink socket,
 * which the I/O thread waits on. What is told of is only who has changed; how it is now is asked. So a
 * lost message costs nothing but to ask for all.
 *
 * A port whose interface is down or has no carrier loses its MAC addresses, as in the kernel's bridge:
 * frames for them are flooded, and who moved is found. It is not shut: the kernel refuses frames for
 * an interface that is down, and the first one after it is up again passes.
 */
import type { EventEmitter } from 'node:events'
import { fstatSync } from 'node:fs'
import { ENOBUFS } from '../abi/errno.ts'
import { MSG_DONTWAIT, RTNLGRP_LINK } from '../abi/rtnetlink.ts'
import { strerror } from '../abi/strerror.ts'
import { shim } from '../native/shim.ts'
import type { LinkInfo } from '../port/interface/link.ts'
import { routeSocket } from '../port/interface/netns.ts'
import { changedLinks, indexRequest, parseAnswer } from '../port/interface/link.ts'
import { SocketThread } from '../sockets/socket-thread.ts'
import type { Log } from '../text.ts'
import { explain } from '../text.ts'
import type { KernelCounters, SwitchEvents } from './api.ts'
import type { EngineClient } from '../engine/client.ts'
import type { PortEntry } from './port-entry.ts'

/** Messages that are read at once; the rest comes with the next look. */
const READS_MAX = 64
/** Of our own questions, which are numbered from here on. */
const SEQUENCE = 0x6670_0000
/** Longer than any message about one link. */
const MESSAGES_LENGTH = 65536

interface Namespace {
  readonly key: string
  readonly fd: number
  readonly ports: Set<PortEntry>
  /** Links that have changed and were not looked at yet. */
  readonly changed: Set<number>
  /** Messages were lost: any may have. */
  isLossy: boolean
  watch: number
}

interface Watched {
  /** Absent: it cannot be watched, so it is only looked at when it is shown. */
  namespace: Namespace | undefined
  ifindex: number
  ifname: string | undefined
  /** Of the bridge or bond that the interface is part of. */
  master: number
  /** The port is not what its interface is: any change may be the one that it waits for. */
  isAstray: boolean
}

export class LinkWatcher {
  readonly #engine: Pick<EngineClient, 'request' | 'counters'>
  readonly #events: EventEmitter<SwitchEvents>
  readonly #log: Log
  readonly #namespaces = new Map<string, Namespace>()
  readonly #ports = new Map<PortEntry, Watched>()
  readonly #data = new Uint8Array(MESSAGES_LENGTH)
  readonly #noFds = new Int32Array(1)
  readonly #info = new Int32Array(2)
  #thread: SocketThread | undefined
  #sequence = 0
  /** Sockets that the I/O thread may still look at. */
  readonly #closing = new Set<Promise<void>>()
  #hasToldFailure = false
  readonly #astray: (entry: PortEntry) => void

  /** `astray` is told of ports that are to follow their interface; see ControlPort.judge. */
  constructor(
    engine: Pick<EngineClient, 'request' | 'counters'>,
    events: EventEmitter<SwitchEvents>,
    log: Log,
    astray: (entry: PortEntry) => void,
  ) {
    this.#astray = astray
    this.#engine = engine
    this.#events = events
    this.#log = log
  }

  /** A port was opened: from now on the state of its interface is known. No interface: nothing to do. */
  add(entry: PortEntry): void {
    this.remove(entry)
    if (entry.open.lookUp === undefined) return
    const watched: Watched = {
      namespace: undefined,
      ifindex: -1,
      ifname: undefined,
      master: 0,
      isAstray: false,
    }
    this.#ports.set(entry, watched)
    // First the socket, then the look: no change between them is missed.
    this.#join(entry, watched)
    const link = this.#find(entry, watched)
    entry.droppedBefore = { rx: link?.rxDropped ?? 0, tx: link?.txDropped ?? 0 }
    this.#note(entry, watched, link)
  }

  remove(entry: PortEntry): void {
    const watched = this.#ports.get(entry)
    if (watched === undefined) return
    this.#ports.delete(entry)
    this.#leave(entry, watched)
    entry.device = undefined
    entry.deviceMtu = undefined
    entry.wasUp = false
  }

  /** Takes in what has changed up to now: the kernel has told of it already. */
  drain(): void {
    for (const namespace of this.#namespaces.values()) this.#read(namespace)
    for (const [entry, watched] of this.#ports) {
      if (watched.namespace === undefined) this.#look(entry, watched)
    }
  }

  /** Looks at the port's interface, whose carrier we have set: the kernel tells of it late. No event. */
  look(entry: PortEntry): void {
    const watched = this.#ports.get(entry)
    if (watched !== undefined) this.#note(entry, watched, this.#find(entry, watched), true)
  }

  /** What the kernel dropped at the port's interface; undefined: there is none, or it cannot be told. */
  kernelCounters(entry: PortEntry): KernelCounters | undefined {
    const watched = this.#ports.get(entry)
    const link = watched === undefined ? null : this.#find(entry, watched)
    return link === null ? undefined : entry.kernelCounters(link)
  }

  async close(): Promise<void> {
    for (const entry of this.#ports.keys()) this.remove(entry)
    await Promise.all(this.#closing)
    await this.#thread?.release()
    this.#thread = undefined
  }

  #look(entry: PortEntry, watched: Watched): void {
    this.#leaveIfMoved(entry, watched)
    this.#note(entry, watched, this.#find(entry, watched))
  }

  /** By its name, else, when that is not permitted any more, by the socket that watches it. */
  #find(entry: PortEntry, watched: Watched): LinkInfo | null {
    return entry.open.lookUp?.() ?? this.#ask(watched)
  }

  #ask({ namespace, ifindex }: Watched): LinkInfo | null {
    if (namespace === undefined || ifindex < 0) return null
    this.#sequence = (this.#sequence + 1) & 0xffff
    const sequence = SEQUENCE + this.#sequence
    const request = indexRequest(ifindex, sequence)
    if (shim.sendMsg(namespace.fd, request, 0, request.length, null, 0, 0) < 0) return null
    // The kernel has answered before that call returns; in front may be what was told before.
    for (let reads = 0; reads < READS_MAX; reads++) {
      const got = this.#receive(namespace)
      if (got < 0) return null
      const message = new DataView(this.#data.buffer, 0, got)
      if (got >= 12 && message.getUint32(8, true) === sequence) return parseAnswer(message).link
      changedLinks(this.#data, got, namespace.changed)
    }
    return null
  }

  /** Bytes of messages in `#data`; negative: there is nothing. */
  #receive(namespace: Namespace): number {
    for (;;) {
      const got = shim.recvMsg(namespace.fd, this.#data, this.#noFds, this.#info, MSG_DONTWAIT)
      if (got !== -ENOBUFS) return got
      namespace.isLossy = true
    }
  }

  /** An interface that is gone stays as it was: that the port has failed is found out elsewhere. */
  #note(entry: PortEntry, watched: Watched, link: LinkInfo | null, isQuiet = false): void {
    watched.isAstray = (entry.open.judge?.(link) ?? 'fine') !== 'fine'
    if (watched.isAstray) this.#astray(entry)
    if (link === null) return
    const { ifname } = entry.open.facts()
    const state = !link.isUp ? 'down' : link.hasCarrier ? 'up' : 'no-carrier'
    const isNew = watched.ifname === undefined
    const isSame = entry.device === state && watched.ifname === ifname
    const wentDown = state !== 'up' && entry.device === 'up'
    watched.ifindex = link.ifindex
    watched.ifname = ifname
    const isJoined = !isNew && link.master !== 0 && link.master !== watched.master
    watched.master = link.master
    if (isJoined && entry.open.facesOutward === true) this.#tellJoined(entry, link)
    entry.device = state
    entry.deviceMtu = link.mtu
    if (state === 'up') entry.wasUp = true
    if (wentDown) {
      this.#engine
        .request({ op: 'forget', port: entry.index })
        .catch((error) => this.#log(explain(error), 'error'))
    }
    if (isSame || isNew || isQuiet) return
    this.#events.emit('port-changed', entry.info(this.#engine.counters))
  }

  /** When it is opened the port tells of that itself. */
  #tellJoined({ options }: PortEntry, { ifname }: LinkInfo): void {
    this.#log(
      `${options.type} ${options.id}: ${ifname} is part of a bridge or bond now, which goes on forwarding its ` +
        'frames beside this switch: do not connect the two anywhere else',
      'warning',
    )
  }

  #join(entry: PortEntry, watched: Watched): void {
    const netnsFd = entry.open.openNetns?.() ?? -1
    try {
      const key = keyOf(netnsFd)
      let namespace = this.#namespaces.get(key)
      namespace ??= this.#open(key, netnsFd)
      if (namespace === undefined) return
      namespace.ports.add(entry)
      watched.namespace = namespace
    } finally {
      if (netnsFd >= 0) shim.close(netnsFd)
    }
  }

  #open(key: string, netnsFd: number): Namespace | undefined {
    const fd = routeSocket(shim, netnsFd)
    const joined = fd < 0 ? fd : shim.netlinkJoin(fd, RTNLGRP_LINK)
    if (joined < 0) {
      if (fd >= 0) shim.close(fd)
      if (!this.#hasToldFailure) {
        this.#log(`interfaces cannot be watched: ${strerror(-joined)}`, 'warning')
      }
      this.#hasToldFailure = true
      return undefined
    }
    try {
      this.#thread ??= SocketThread.acquire()
    } catch (error) {
      shim.close(fd)
      throw error
    }
    const namespace: Namespace = {
      key,
      fd,
      ports: new Set(),
      changed: new Set(),
      isLossy: false,
      watch: 0,
    }
    this.#namespaces.set(key, namespace)
    this.#arm(namespace)
    return namespace
  }

  #arm(namespace: Namespace): void {
    namespace.watch = this.#thread!.watch(namespace.fd, () => {
      if (this.#namespaces.get(namespace.key) !== namespace) return
      this.#read(namespace)
      // It may be nobody's any more.
      if (this.#namespaces.get(namespace.key) === namespace) this.#arm(namespace)
    })
  }

  #read(namespace: Namespace): void {
    for (let reads = 0; reads < READS_MAX; reads++) {
      const got = this.#receive(namespace)
      if (got <= 0) break
      changedLinks(this.#data, got, namespace.changed)
    }
    const { isLossy } = namespace
    if (!isLossy && namespace.changed.size === 0) return
    const indexes = new Set(namespace.changed)
    namespace.changed.clear()
    namespace.isLossy = false
    for (const entry of namespace.ports) {
      const watched = this.#ports.get(entry)
      if (watched === undefined) continue
      const isMeant = isLossy || watched.isAstray || indexes.has(watched.ifindex)
      if (isMeant) this.#look(entry, watched)
    }
  }

  /** An interface that was moved to another namespace is watched there. */
  #leaveIfMoved(entry: PortEntry, watched: Watched): void {
    const netnsFd = entry.open.openNetns?.() ?? -1
    // Who may not ask any more takes it for where it was.
    if (netnsFd < 0 && watched.namespace !== undefined) return
    let key: string
    try {
      key = keyOf(netnsFd)
    } catch {
      // Where it is cannot be told now: it is looked at again with the next change.
      return
    } finally {
      if (netnsFd >= 0) shim.close(netnsFd)
    }
    if (watched.namespace?.key === key) return
    this.#leave(entry, watched)
    this.#join(entry, watched)
    // Shown with its new namespace, though its name may be the same.
    watched.ifname &&= ''
  }

  #leave(entry: PortEntry, watched: Watched): void {
    const { namespace } = watched
    if (namespace === undefined) return
    watched.namespace = undefined
    namespace.ports.delete(entry)
    if (namespace.ports.size > 0) return
    this.#namespaces.delete(namespace.key)
    const closing = this.#thread!.unwatch(namespace.watch).then(() => {
      shim.close(namespace.fd)
      this.#closing.delete(closing)
    })
    this.#closing.add(closing)
  }
}

/** What tells one namespace from another; -1 is our own. */
function keyOf(netnsFd: number): string {
  if (netnsFd < 0) return 'own'
  const { dev, ino } = fstatSync(netnsFd)
  return `${dev}:${ino}`
}
