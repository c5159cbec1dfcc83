import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ip } from '../lab/namespace.ts';
import { must } from '../lab/process.ts';

/**
 * One private network of `n` hosts, each a network namespace with a device of its own for each subject, so that bytes are
 * told apart by the kernel's counters while every fault hits both at once.
 */
export type Wire = 'ours' | 'serf';
const WIRES: readonly Wire[] = ['ours', 'serf'];
const NETWORKS: Readonly<Record<Wire, string>> = { ours: '10.90', serf: '10.91' };

export interface Segment {
  readonly hosts: number;
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
 * The kernel keeps the neighbours of all namespaces in one table, of 1024 by default. Where each of thirty hosts speaks to all
 * others on two devices it overflows, and drops what both subjects send.
 *
 * @returns what puts the limits back
 */
async function roomForNeighbours(hosts: number): Promise<() => Promise<void>> {
  const needed = 2 * WIRES.length * hosts * hosts;
  // The upper ones first: a lower one above them would be refused.
  const files = [3, 2, 1].map((step) => `/proc/sys/net/ipv4/neigh/default/gc_thresh${step}`);
  const before = await Promise.all(files.map((file) => readFile(file, 'utf8')));
  for (const [at, file] of files.entries())
    if (Number(before[at]) < needed) await writeFile(file, String(needed));
  return async () => {
    for (const [at, file] of [...files.entries()].reverse()) await writeFile(file, before[at] ?? '');
  };
}

export async function createSegment(hosts: number): Promise<Segment> {
  const place = `bench-${process.pid}`;
  const middle = `${place}-switch`;
  const namespaceOf = (host: number): string => `${place}-${host}`;
  const addressOf = (host: number, wire: Wire): string =>
    `${NETWORKS[wire]}.${Math.floor(host / 200)}.${(host % 200) + 1}`;
  const all = [middle, ...Array.from({ length: hosts }, (_, host) => namespaceOf(host))];
  const setCables = (host: number, state: 'up' | 'down'): Promise<void> =>
    ip(
      middle,
      WIRES.map((wire) => `link set ${wire}${host} ${state}`),
    );
  const restoreNeighbours = await roomForNeighbours(hosts);
  const close = async (): Promise<void> => {
    for (const name of all) await must(['ip', 'netns', 'del', name]).catch(() => undefined);
    await restoreNeighbours();
  };
  try {
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
    await close();
    throw error;
  }
  return {
    hosts,
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
    close,
  };
}

/**
 * A segment and a directory for `work`. What it puts into `closers` is closed, and both are cleared, whatever happens,
 * Ctrl-C included.
 */
export async function withSegment(
  hosts: number,
  work: (segment: Segment, directory: string, closers: { close(): Promise<void> }[]) => Promise<void>,
): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'bornemisza-bench-'));
  const segment = await createSegment(hosts);
  const closers: { close(): Promise<void> }[] = [];
  const clear = async (): Promise<void> => {
    await Promise.allSettled(closers.map((each) => each.close()));
    await segment.close();
    await rm(directory, { recursive: true, force: true });
  };
  const stopped = (): void => void clear().finally(() => process.exit(130));
  process.once('SIGINT', stopped).once('SIGTERM', stopped);
  try {
    await work(segment, directory, closers);
  } finally {
    process.off('SIGINT', stopped).off('SIGTERM', stopped);
    await clear();
  }
}
