import { readFile } from 'node:fs/promises';
import type { MemberRow } from '../../daemon/control/api.ts';
import type { Host } from '../io.ts';
import { readNetwork } from '../setup/links.ts';
import type { Area, Check } from './check.ts';

/** IPv4 and ICMP, which ping puts before its payload. */
const HEADERS_BYTES = 20 + 8;
/** Of IPv4: nothing is smaller. */
const SMALL_BYTES = 576;
/** The longest that ping can send. */
const LARGEST_BYTES = 65_535;
/**
 * What networks carry that carry less than their devices say: jumbo frames, Ethernet, and Ethernet less a tunnel or
 * two.
 */
const USUAL_MTUS = [8950, 8900, 1500, 1492, 1480, 1450, 1420, 1400, 1280, SMALL_BYTES];
/** One of them is enough to see it, as all are on one network; more, for those that are on another machine's. */
const MOST_ASKED = 10;

/** What packets the private device sends, and how large the largest is that arrives at one address. */
export interface PacketSize {
  readonly device: string;
  readonly mtu: number;
  /** Undefined: not even the smallest is answered. */
  readonly most: number | undefined;
}

/**
 * Whether packets as large as the private device sends them arrive at the others. A network that carries less and does
 * not say so lets small words through, so that everything seems well, and whatever is longer hangs: libp2p, HAProxy,
 * CouchDB.
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

/** By address of the members that are alive, this node's own among the rows; none where it has no device of its own. */
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
 * Asks twice, as one may be lost, by packets that nobody on the way may take apart. Where the path itself says what it
 * takes TCP sends no more than that, and all is well. Another ping than that of iputils refuses the options, which is
 * no answer.
 */
async function arrives(host: Host, address: string, bytes: number): Promise<boolean> {
  const size = String(bytes - HEADERS_BYTES);
  const args = ['-n', '-c', '2', '-i', '0.2', '-W', '1', '-M', 'do', '-s', size, address];
  const { code, stdout, stderr } = await host.run('ping', args);
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
    return area.ok('packets', 'not found out: nobody answers ping (iputils), or it is not installed');
  if (short.length === 0) return area.ok('packets', `${device} sends ${mtu} bytes, and they arrive`);
  const names = short.map(({ name }) => name).join(', ');
  const carried = Math.min(...short.map(({ most = mtu }) => most));
  return area.warn(
    'packets',
    `${device} sends packets of up to ${mtu} bytes, of which those above ${carried} never arrive at ` +
      `${names}: what is short works, what is long hangs`,
    `on each node: ip link set dev ${device} mtu ${carried}, and the same in the device's own ` +
      'configuration, for the next boot',
  );
}
