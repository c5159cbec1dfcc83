import { readFile, writeFile } from 'node:fs/promises';
import { ip, namespaceOf as nameIn } from '../lab/namespace.ts';
import { type ClaimedPlace, claimPlace, sweepPlaces } from '../lab/place.ts';
import { must } from '../lab/process.ts';

/**
 * One private network of `n` hosts, each a network namespace with a device of its own for each subject, so that bytes
 * are told apart by the kernel's counters while every fault hits both at once.
 */
export type Wire = 'ours' | 'serf';
const WIRES: readonly Wire[] = ['ours', 'serf'];
const NETWORKS: Readonly<Record<Wire, string>> = { ours: '10.90', serf: '10.91' };

export interface Segment {
  readonly hosts: number;
  /** For files; gone after `close()`. */
  readonly directory: string;
  namespaceOf(host: number): string;
  addressOf(host: number, wire: Wire): string;
  /** The cable is out on both devices: nothing is said to anybody. */
  cut(host: number): Promise<void>;
  restore(host: number): Promise<void>;
  /** Bytes that the host has sent so far, with Ethernet headers. */
  bytesSent(host: number, wire: Wire): Promise<number>;
  close(): Promise<void>;
}

/**
 * The kernel keeps the neighbours of all namespaces in one table, of 1024 by default. Where each of thirty hosts speaks
 * to all others on two devices it overflows, and drops what both subjects send.
 */
async function makeRoomForNeighbours(place: ClaimedPlace, hosts: number): Promise<void> {
  const needed = 2 * WIRES.length * hosts * hosts;
  // The upper ones first: a lower one above them would be refused.
  for (const step of [3, 2, 1]) {
    const file = `/proc/sys/net/ipv4/neigh/default/gc_thresh${step}`;
    if (Number(await readFile(file, 'utf8')) >= needed) continue;
    await place.putBackAtEnd(file);
    await writeFile(file, String(needed));
  }
}

export async function createSegment(hosts: number): Promise<Segment> {
  await sweepPlaces();
  const place = await claimPlace();
  const middle = nameIn(place, 'switch');
  const namespaceOf = (host: number): string => nameIn(place, String(host));
  const addressOf = (host: number, wire: Wire): string =>
    `${NETWORKS[wire]}.${Math.floor(host / 200)}.${(host % 200) + 1}`;
  const all = [middle, ...Array.from({ length: hosts }, (_, host) => namespaceOf(host))];
  const setCables = (host: number, state: 'up' | 'down'): Promise<void> =>
    ip(
      middle,
      WIRES.map((wire) => `link set ${wire}${host} ${state}`),
    );
  try {
    await makeRoomForNeighbours(place, hosts);
    await ip(
      undefined,
      all.map((name) => `netns add ${name}`),
    );
    await ip(
      middle,
      WIRES.flatMap((wire) => [`link add ${wire} type bridge`, `link set ${wire} up`]),
    );
    for (let host = 0; host < hosts; host += 1) {
      await ip(
        middle,
        WIRES.flatMap((wire) => [
          `link add ${wire}${host} type veth peer name ${wire} netns ${namespaceOf(host)}`,
          `link set ${wire}${host} master ${wire} up`,
        ]),
      );
      await ip(namespaceOf(host), [
        'link set lo up',
        ...WIRES.flatMap((wire) => [
          `addr add ${addressOf(host, wire)}/16 dev ${wire}`,
          `link set ${wire} up`,
        ]),
      ]);
    }
  } catch (error) {
    await place.close();
    throw error;
  }
  return {
    hosts,
    directory: place.directory,
    namespaceOf,
    addressOf,
    cut: (host) => setCables(host, 'down'),
    restore: (host) => setCables(host, 'up'),
    async bytesSent(host, wire) {
      const [device] = JSON.parse(
        await must(['ip', '-n', namespaceOf(host), '-s', '-j', 'link', 'show', 'dev', wire]),
      ) as { stats64: { tx: { bytes: number } } }[];
      if (device === undefined) throw new Error(`no device ${wire} in ${namespaceOf(host)}`);
      return device.stats64.tx.bytes;
    },
    close: () => place.close(),
  };
}

/**
 * A segment and its directory for `work`. What it puts into `closers` is closed first; all is cleared, however this
 * process ends.
 */
export async function withSegment(
  hosts: number,
  work: (segment: Segment, directory: string, closers: { close(): Promise<void> }[]) => Promise<void>,
): Promise<void> {
  const segment = await createSegment(hosts);
  const closers: { close(): Promise<void> }[] = [];
  try {
    await work(segment, segment.directory, closers);
  } finally {
    await Promise.allSettled(closers.map((each) => each.close()));
    await segment.close();
  }
}
