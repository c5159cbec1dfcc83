import type { AuditEntry } from '../../src/daemon/control/api.ts';
import { isBeside } from '../../src/plugins/haproxy/rendered.ts';
import { parseProcesses } from '../../src/plugins/haproxy/runtime.ts';
import type { Cluster, Instance } from '../lab/cluster.ts';
import type { Host } from '../lab/index.ts';
import type { ServerRecord } from '../support/haproxy-servers.ts';
import { until } from '../support/until.ts';

/** What a test waits for at most where the promise itself names no time: other labs may have the machine’s cores. */
export const PATIENCE_MS = 60_000;

export const daemonOf = ({ role }: Instance): string => `bornemisza@${role}.service`;
export const haproxyOf = ({ role }: Instance): string => `bornemisza-haproxy@${role}.service`;

/** The id of the newest entry of a daemon’s audit trail. */
export async function trailEnd(cluster: Cluster, instance: Instance): Promise<number> {
  return (await cluster.audit(instance)).at(-1)?.id ?? 0;
}

/** Waits for an entry after the one with the given id. */
export function nextEntry(
  cluster: Cluster,
  instance: Instance,
  afterId: number,
  matches: (entry: AuditEntry) => boolean,
  deadlineMs = PATIENCE_MS,
): Promise<AuditEntry> {
  return until(
    async () => {
      const later = await cluster.audit(instance, { since: afterId });
      const found = later.find(matches);
      if (found === undefined) throw new Error(later.map(inOneLine).join('\n'));
      return found;
    },
    {
      deadlineMs,
      everyMs: 100,
      what: `an entry in the audit trail of ${instance.name}: ${matches.toString()}`,
    },
  );
}

export const inOneLine = ({ kind, plugin, summary, changes, trigger, result }: AuditEntry): string =>
  `${kind} ${plugin ?? ''} ${result}: ${summary} {${changes?.join(' | ') ?? ''}} [${trigger}]`;

/** How much later than promised something may be where this machine needs that long to start `true`. */
export async function slackMs(host: Host): Promise<number> {
  const startMs = performance.now();
  await host.must(['true']);
  return 10 * Math.max(0, performance.now() - startMs - 60);
}

/** Processes that must outlive every daemon: HAProxy’s master and worker with its count of reloads, BIRD, CouchDB. */
export async function programs({ host, role }: Instance): Promise<string> {
  const socket = `/run/bornemisza-haproxy/${role}/master.sock`;
  const processes = parseProcesses(await host.askLine(socket, 'show proc'))
    .filter(({ kind }) => kind !== 'old-worker')
    .map(({ pid, kind, reloads }) => `${kind} ${pid}, ${reloads} reloads`);
  const beside = role === 'app' ? 'bird.service' : 'couchdb.service';
  return [...processes, `${beside} ${(await host.unit(beside)).mainPid}`].join('; ');
}

/** When an app node's BIRD was last started and configured, and since when each of its protocols stands. */
export async function birdConfigured({ host, role }: Instance): Promise<string> {
  if (role !== 'app') return '';
  const status = await host.must(['birdc', 'show status']);
  const protocols = await host.must(['birdc', 'show protocols']);
  const lines = status.split('\n').filter((line) => line.startsWith('Last re'));
  return [...lines, ...protocols.split('\n').filter((line) => / (BGP|Direct) /.test(line))].join('\n');
}

/**
 * Servers that carry requests; the second checks of members (`NAME.unwatched`, `NAME.panic`) carry none while these do.
 */
export async function carrying(cluster: Cluster, instance: Instance): Promise<ServerRecord[]> {
  return (await cluster.servers(instance))
    .filter((server) => !isBeside(server))
    .toSorted((one, other) => one.server.localeCompare(other.server));
}

/** Their state by name, whatever a check under way says. */
export async function serving(cluster: Cluster, instance: Instance): Promise<Record<string, string>> {
  const servers = await carrying(cluster, instance);
  return Object.fromEntries(servers.map(({ server, status }) => [server, wordOf(status)]));
}

export const wordOf = (status: string): string => status.split(' ')[0] ?? '';

/**
 * Waits until every server that could carry requests does, at every app node: they follow when each db node has said
 * so.
 */
export async function allUp(cluster: Cluster, everyMs = 250): Promise<void> {
  await cluster.settled(PATIENCE_MS, cluster.instances, everyMs);
  for (const app of cluster.instancesOf('app')) {
    const names = Object.keys(await serving(cluster, app));
    for (const name of names) await serverIs(cluster, app, name, 'UP');
  }
  await cluster.settled(PATIENCE_MS, cluster.instances, everyMs);
}

/** Waits until HAProxy itself says this of one of its servers; `status` as in `show stat`, without its details. */
export function serverIs(
  cluster: Cluster,
  instance: Instance,
  server: string,
  status: 'UP' | 'DOWN' | 'MAINT',
): Promise<true> {
  return until(
    async () => {
      const now = (await cluster.servers(instance)).find((each) => each.server === server)?.status;
      if (now === undefined || wordOf(now) !== status) throw new Error(`${server} is ${now}`);
      return true as const;
    },
    { deadlineMs: PATIENCE_MS, everyMs: 200, what: `${server} ${status} at ${instance.name}` },
  );
}

/** kill -9, and nothing starts it again until {@link reviveDaemon}. Resolves when the process is gone. */
export async function killDaemon(instance: Instance): Promise<void> {
  const unit = daemonOf(instance);
  await instance.host.mask(unit);
  await instance.host.kill(unit, 'SIGKILL');
  await instance.host.waitForUnit(unit, ({ mainPid }) => mainPid === 0, PATIENCE_MS);
}

export async function reviveDaemon(instance: Instance): Promise<void> {
  await instance.host.unmask(daemonOf(instance));
  await instance.host.start(daemonOf(instance));
}
