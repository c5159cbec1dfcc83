import { readFile } from 'node:fs/promises';
import type { MemberRow } from '../../daemon/control/api.ts';
import { answered } from '../answered.ts';
import type { Host } from '../io.ts';
import { readNetwork } from '../setup/links.ts';
import type { Area, Check } from './check.ts';

/** Bytes of the IPv4 and ICMP headers before the payload of ping. */
const HEADERS_BYTES = 20 + 8;
/** The smallest MTU of IPv4. */
const SMALL_BYTES = 576;
/** The largest packet that ping can send. */
const LARGEST_BYTES = 65_535;
/**
 * Common real limits of networks whose devices claim more: jumbo frames, Ethernet, and Ethernet minus one or two
 * tunnels.
 */
const USUAL_MTUS = [8950, 8900, 1500, 1492, 1480, 1450, 1420, 1400, 1280, SMALL_BYTES];
/** One member would do, as all are on one network; several cover those on another physical machine. */
const MOST_ASKED = 10;

/** The MTU of the private device, and the largest packet that arrives at one address. */
export interface PacketSize {
  readonly device: string;
  readonly mtu: number;
  /** Undefined: not even the smallest packet is answered. */
  readonly most: number | undefined;
}

/**
 * Whether packets of the private device's MTU arrive at the others. A network that silently carries less passes short
 * messages, so all seems well, but long ones hang: libp2p, HAProxy, CouchDB.
 */
export async function fullPackets(host: Host, members: readonly MemberRow[], area: Area): Promise<Check[]> {
  const names = new Map(
    members.filter(({ state }) => state === 'alive').map((each) => [each.address, each.name]),
  );
  const sizes = [...(await packetSizes(host, members))];
  const asked = sizes.map(([address, { most }]) => ({ name: names.get(address) ?? address, most }));
  const [first] = sizes;
  return first === undefined ? [] : [judge(area, first[1].device, first[1].mtu, asked)];
}

/** By address of the live members, this node included; empty if this node has no private device. */
export async function packetSizes(
  host: Host,
  members: readonly MemberRow[],
): Promise<ReadonlyMap<string, PacketSize>> {
  const own = members.find((each) => each.self)?.address;
  const machines = new Set(
    members
      .filter(({ address, state }) => address !== own && state === 'alive')
      .map(({ address }) => address),
  );
  if (machines.size === 0) return new Map();
  const device = (await readNetwork(host)).addresses.find((each) => each.address === own);
  if (device === undefined || device.kind === 'loopback') return new Map();
  const text = await readFile(`/sys/class/net/${device.device}/mtu`, 'utf8').catch(() => '');
  const mtu = Math.min(Number(text), LARGEST_BYTES);
  if (!(mtu > SMALL_BYTES)) return new Map();
  return new Map(
    await Promise.all(
      [...machines].slice(0, MOST_ASKED).map(async (address): Promise<[string, PacketSize]> => {
        return [address, { device: device.device, mtu, most: await largestTo(host, address, mtu) }];
      }),
    ),
  );
}

/** @returns the largest packet that arrives, in bytes; undefined: not even the smallest is answered */
async function largestTo(host: Host, address: string, mtu: number): Promise<number | undefined> {
  if (await arrives(host, address, mtu)) return mtu;
  const sizes = USUAL_MTUS.filter((each) => each < mtu);
  const answers = await Promise.all(sizes.map((bytes) => arrives(host, address, bytes)));
  return sizes.find((_, index) => answers[index]);
}

/**
 * Sends twice, as one packet can be lost, and forbids fragmentation. If the path reports its own limit, TCP keeps to
 * it, and all is well. A ping other than that of iputils refuses the options, which counts as no answer.
 */
async function arrives(host: Host, address: string, bytes: number): Promise<boolean> {
  const size = String(bytes - HEADERS_BYTES);
  const args = ['-n', '-c', '2', '-i', '0.2', '-W', '1', '-M', 'do', '-s', size, address];
  const { code, stdout, stderr } = answered(await host.run('ping', args));
  return code === 0 || /\bmtu ?= ?\d+/.test(stdout + stderr);
}

function judge(
  area: Area,
  device: string,
  mtu: number,
  asked: readonly { readonly name: string; readonly most: number | undefined }[],
): Check {
  const answering = asked.filter(({ most }) => most !== undefined);
  const short = answering.filter(({ most = mtu }) => most < mtu);
  if (answering.length === 0)
    return area.ok('packets', 'unknown: no member answers ping (iputils), or it is not installed');
  if (short.length === 0) return area.ok('packets', `${device} sends ${mtu} bytes, and they arrive`);
  const names = short.map(({ name }) => name).join(', ');
  const carried = Math.min(...short.map(({ most = mtu }) => most));
  return area.warn(
    'packets',
    `${device} sends packets of up to ${mtu} bytes, but packets above ${carried} bytes do not arrive at ` +
      `${names}: long messages never arrive`,
    `on each node: ip link set dev ${device} mtu ${carried}, and set the same in the configuration of the ` +
      'device, for the next boot',
  );
}
