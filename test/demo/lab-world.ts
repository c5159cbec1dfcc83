import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { AuditEntry } from '../../src/daemon/control/api.ts';
import { Cluster, type Instance } from '../lab/cluster.ts';
import { parseServers } from '../support/haproxy-servers.ts';
import { aroundOf, configuring, outsideOf, setUpAppTier } from './around.ts';
import type { Picture, World } from './world.ts';

/** The story’s world on lab hosts: namespaces, a real systemd in each, real HAProxy, BIRD and a provider’s router. */
export async function labWorld(options: {
  app: number;
  db: number;
  progress: (text: string) => void;
}): Promise<World> {
  const directory = await mkdtemp(join(tmpdir(), 'bornemisza-demo-'));
  const outside = await outsideOf(directory, options.progress);
  const close = async (): Promise<void> => {
    outside?.close();
    await made?.close();
    await rm(directory, { recursive: true, force: true });
  };
  let made: Cluster | undefined;
  try {
    made = await Cluster.create({ ...options, ...(outside && { configure: configuring(outside) }) });
    if (outside !== undefined) await setUpAppTier(made, outside, options.progress);
  } catch (error) {
    await close();
    throw error;
  }
  const cluster = made;
  const down = new Set<string>();
  const cutOff = new Set<string>();
  const left = new Set<string>();
  const { lab } = cluster;
  const [floating = ''] = lab.floatingAddresses;
  const nameByAddress = new Map<string, string>();
  const reachable = (instance: Instance): boolean => !down.has(instance.host.name) && instance.host.running;

  const look = async (): Promise<Picture> => {
    for (const { host } of cluster.instances) nameByAddress.set(host.privateAddress, host.name);
    const asked = cluster.instancesOf('app').find((each) => reachable(each) && !cutOff.has(each.host.name));
    if (asked === undefined) throw new Error('no app node runs');
    const edges = cluster.instancesOf('app').filter(reachable);
    const databases = cluster
      .instancesOf('db')
      .filter((each) => reachable(each) && !left.has(each.host.name));
    const [members, events, routes, servers, couch] = await Promise.all([
      cluster.members(asked),
      eventsOf(asked),
      lab.router.announcers(floating),
      Promise.all(
        edges.map(
          async (edge) =>
            [edge.name, parseServers(await cluster.haproxy(edge, 'show stat').catch(() => ''))] as const,
        ),
      ),
      Promise.all(databases.map(async (each) => [each.host.name, await membership(each)] as const)),
    ]);
    return {
      askedName: asked.name,
      members,
      events,
      announcers: routes,
      servers: new Map(servers),
      couch: new Map(couch),
    };
  };
  const trails = new Map<string, readonly AuditEntry[]>();
  /** What a trail had is not asked for again: the daemon would read and send all of it at each look. */
  const eventsOf = async (instance: Instance): Promise<readonly AuditEntry[]> => {
    const lastId = (): number => trails.get(instance.name)?.at(-1)?.id ?? 0;
    const more = await cluster.audit(instance, { since: lastId() });
    // A look of the live view may have run meanwhile.
    const news = more.filter(({ id }) => id > lastId());
    const events = [...(trails.get(instance.name) ?? []), ...news].slice(-KEPT_EVENTS);
    trails.set(instance.name, events);
    return events;
  };
  const asking = new Map<string, ReturnType<typeof cluster.couchMembership>>();
  /**
   * One question at a time to each: behind a cut CouchDB answers no administrator for seconds, and the rest of a look
   * does not wait for it.
   */
  const ask = (instance: Instance) => {
    const under = asking.get(instance.name) ?? cluster.couchMembership(instance);
    asking.set(instance.name, under);
    return under.finally(() => asking.delete(instance.name));
  };
  const membership = async (instance: Instance) => {
    const answer = await Promise.race([ask(instance).catch(() => undefined), pause(COUCHDB_PATIENCE_MS)]);
    if (answer?.all_nodes === undefined) return undefined;
    const named = (nodes: readonly string[]): string[] =>
      nodes.map((node) => nameByAddress.get(node.split('@')[1] ?? '') ?? node);
    return { connected: named(answer.all_nodes), members: named(answer.cluster_nodes) };
  };
  const hosts = (role: 'app' | 'db'): string[] =>
    cluster
      .instancesOf(role)
      .map((each) => each.host.name)
      .filter((name) => !left.has(name));

  return {
    routed: true,
    around: outside && aroundOf(cluster, outside),
    service: outside === undefined ? 'site' : 'web',
    title:
      `${hosts('app').length} app and ${hosts('db').length} db nodes, each a machine with its own systemd; ` +
      (process.env['LAB_COUCHDB'] === undefined ? 'stand-in for CouchDB' : 'real CouchDB') +
      (lab.packaged ? '; installed from the package' : ''),
    site: `https://${floating}/`,
    look,
    hosts,
    visit: async () => {
      try {
        const source = Math.floor(Math.random() * 60);
        const { status, body } = await lab.client.request({
          url: `https://${floating}/`,
          source,
          timeoutMs: 3000,
        });
        return `${status} ${/served by (\w+)/.exec(body)?.[0] ?? ''}`;
      } catch (error) {
        return error instanceof Error ? error.message : String(error);
      }
    },
    join: async (host, role) => {
      await cluster.addHost(host, role);
    },
    kill: async (host) => {
      await lab.host(host).powerCut();
      down.add(host);
    },
    revive: async (host) => {
      await lab.host(host).boot();
      down.delete(host);
    },
    cut: async (host) => {
      await lab.host(host).cut({ device: 'private' });
      cutOff.add(host);
    },
    heal: async (host) => {
      await lab.host(host).heal();
      cutOff.delete(host);
    },
    leave: async (host, progress) => {
      const instance = cluster.instance(host);
      const text = await cluster.command(instance, ['leave', '--json'], LEAVE_TIMEOUT_MS);
      for (const line of text.trim().split('\n')) progress((JSON.parse(line) as { message: string }).message);
      await instance.host.must(['systemctl', 'disable', '--now', `bornemisza@${instance.role}.service`]);
      left.add(host);
    },
    rebootAll: async () => {
      await lab.rebootAll();
    },
    diagnose: async () => {
      const parts = await Promise.all(
        cluster.instances.filter(reachable).map(async (instance) => {
          const say = (work: Promise<string>): Promise<string> =>
            work.catch((error: unknown) => String(error));
          const status = await say(cluster.command(instance, ['status']));
          const journal = await say(
            instance.host.must(['journalctl', '--no-pager', '-n', '25', '-o', 'short-iso']),
          );
          return `===== ${instance.name}\n${status}\n${journal}`;
        }),
      );
      return parts.join('\n');
    },
    close,
  };
}

/** More than one step makes, and than a screen shows. */
const KEPT_EVENTS = 500;
const COUCHDB_PATIENCE_MS = 1000;
/** Every copy of every database moves, at most two minutes in a lab. */
const LEAVE_TIMEOUT_MS = 120_000;
