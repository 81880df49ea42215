/** Commands about ports: adding and removing them, what they are, their counters and offloads. */
import { portOptionsFromObject } from '../../config/port-options.ts'
import { ConfigErrors, FramepumpError } from '../../errors.ts'
import { givenDescriptors } from '../../port/kinds.control.ts'
import type { PortOptions } from '../../port/options.ts'
import type { PortInfo } from '../../switch/api.ts'
import type { Command } from '../command.ts'
import { command } from '../command.ts'
import { Pages, pagesOf } from '../session.ts'

export const PORT_COMMANDS: readonly Command[] = [
  command({
    name: 'netdev_add',
    description: 'Adds a port to the switch, or to a link.',
    arguments: {
      type: { kind: 'string', required: true, description: 'Type of the port.' },
      id: { kind: 'string', required: true, description: 'Unique name of the port.' },
      peer: { kind: 'string', description: 'A port that it is wired to before its first frame.' },
    },
    more: 'the options of that type',
    run: async ({ peer, ...args }, { target, session }) => {
      const options = readPort(args)
      await target.addPort(options, session.fds.byName, peer)
      // The port owns them now.
      for (const name of givenDescriptors(options)) session.fds.take(name)
    },
  }),
  command({
    name: 'netdev_del',
    description: 'Removes a port.',
    arguments: { id: { kind: 'string', required: true, description: 'The port.' } },
    run: ({ id }, { target }) => target.switch.removePort(id),
  }),
  command({
    name: 'set_link',
    description:
      'Sets the link of a port up or down: while it is down no frame enters or leaves by it.',
    arguments: {
      name: { kind: 'string', required: true, description: 'The port.' },
      up: { kind: 'boolean', required: true, description: 'Up (true) or down (false).' },
    },
    run: ({ name, up }, { target }) => target.switch.setLink(name, up),
  }),
  command({
    name: 'query-ports',
    description: 'All ports.',
    arguments: {},
    returns:
      'list of `{id, type, state, error?, ifname?, netns?, path?, queues, offloads: {rx, tx}, link, counters, ...}`, and the options of VLANs and policy that are given',
    run: (_, { target }) => pagesOf(target.switch.ports(), describePort),
  }),
  command({
    name: 'query-port-stats',
    description: 'Counters of ports, those of the kernel included.',
    arguments: { id: { kind: 'string', absent: 'all', description: 'The port.' } },
    returns: 'list of `{id, rx_frames, tx_frames, ...}`: a counter has its reason in its name',
    run: async ({ id }, { target: { switch: sw } }) => {
      // The kernel's own are taken in now.
      await sw.currentCounters()
      return pagesOf(id === undefined ? sw.ports() : [sw.port(id)], (port) => ({
        id: port.id,
        ...port.counters,
        ...sw.kernelCounters(port.id),
      }))
    },
  }),
  command({
    name: 'query-offloads',
    description: 'For each pair of ports that can meet, what becomes of offloads between them.',
    arguments: { from: { kind: 'string', absent: 'all', description: 'The port that sends.' } },
    returns:
      'list of `{from, to, pass, software, merge, checksummed, segmented, coalesced, dropped}`',
    run: ({ from }, { target: { switch: sw } }) => {
      const ports = sw.ports()
      return new Pages(describeOffloads(from === undefined ? ports : [sw.port(from)], ports))
    },
  }),
]

/** The first error, as QEMU. */
function readPort(args: Readonly<Record<string, unknown>>): PortOptions {
  try {
    return portOptionsFromObject(args)
  } catch (error) {
    const first = error instanceof ConfigErrors ? error.errors[0] : error
    if (first instanceof FramepumpError) first.port = String(args['id'])
    throw first
  }
}

/** PortInfo in QMP's spelling. */
function describePort(port: PortInfo): Record<string, unknown> {
  const { vnetHdrLength, notPostponed, queuesAttached, deviceMtu, switching, ...rest } = port
  return {
    ...rest,
    ...(deviceMtu === undefined ? {} : { 'device-mtu': deviceMtu }),
    ...(notPostponed === undefined ? {} : { 'not-postponed': notPostponed }),
    ...(queuesAttached === undefined ? {} : { 'queues-attached': queuesAttached }),
    'vnet-hdr-length': vnetHdrLength,
    ...switching,
  }
}

/**
 * For each pair of ports that can meet: which offloads pass unchanged, which are done in software
 * because the egress lacks them, which segments are merged; and what the egress was given so far, by
 * all senders together.
 */
function* describeOffloads(
  senders: readonly PortInfo[],
  ports: readonly PortInfo[],
): Generator<readonly unknown[]> {
  for (const from of senders) {
    yield ports
      .filter((to) => to.id !== from.id && meet(from, to))
      .map((to) => ({
        from: from.id,
        to: to.id,
        pass: from.offloads.rx.filter((name) => to.offloads.tx.includes(name)),
        software: from.offloads.rx.filter((name) => !to.offloads.tx.includes(name)),
        merge: from.gro ? to.offloads.tx.filter((name) => name === 'tso4' || name === 'tso6') : [],
        checksummed: to.counters.tx_checksummed,
        segmented: to.counters.tx_segmented,
        coalesced: to.counters.tx_coalesced,
        dropped: to.counters.tx_drop_offload,
      }))
  }
}

function meet(from: PortInfo, to: PortInfo): boolean {
  if (from.peer !== undefined || to.peer !== undefined) return from.peer === to.id
  return true
}
