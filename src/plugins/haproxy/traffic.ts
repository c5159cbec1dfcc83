import { PluginError } from '../contract.ts';
import { DATABASE_SWITCH, isBeside, isOwn, SHARING } from './rendered.ts';
import { parseConnections, parseStat, parseStreams } from './runtime.ts';
import type { HaproxyTraffic } from './shape.ts';
import type { Sockets } from './sockets.ts';

/** Frontends of this host's own programs, and of the statistics. */
const OWN_FRONTENDS: ReadonlySet<string> = new Set(['databases', 'stats']);
/** Whether requests of other hosts come in there. */
export const isOuter = (frontend: string): boolean => !isOwn(frontend) && !OWN_FRONTENDS.has(frontend);
const OWN_BACKENDS: ReadonlySet<string> = new Set([DATABASE_SWITCH.backend, SHARING.backend]);
const ANSWER_MS = 2000;
/** More than some reloads in 15 minutes are a fault of their own. */
const MAX_OLD_ASKED = 8;

/** @param oldWorkers pids of processes of before the last reloads */
export async function trafficOf(
  sockets: Sockets,
  oldWorkers: (signal: AbortSignal) => Promise<readonly number[]>,
  signal: AbortSignal,
): Promise<HaproxyTraffic> {
  try {
    const { frontends, servers } = parseStat(await sockets.ask('show stat -1 5 -1', signal, ANSWER_MS));
    const streams = parseStreams(await sockets.ask('show sess', signal, ANSWER_MS));
    const outer = frontends
      .filter(({ name }) => isOuter(name))
      .map((each) => ({ ...each, requests: streams.get(each.name) ?? 0 }));
    const names = new Set(outer.map(({ name }) => name));
    const old = await oldTraffic(sockets, await oldWorkers(signal), names, signal);
    const shown = servers.filter((each) => !isBeside(each) && !OWN_BACKENDS.has(each.backend));
    return told({
      running: true,
      frontends: outer,
      old,
      servers: shown.map(({ backend, name, status, sessions }) => ({
        server: `${backend}/${name}`,
        status,
        sessions,
      })),
    });
  } catch (error) {
    if (!(error instanceof PluginError) || error.code !== 'haproxy-not-running') throw error;
    return told({
      running: false,
      frontends: [],
      old: { processes: 0, connections: 0, requests: 0 },
      servers: [],
    });
  }
}

async function oldTraffic(
  sockets: Sockets,
  pids: readonly number[],
  frontends: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<HaproxyTraffic['old']> {
  const options = { signal, timeoutMs: ANSWER_MS };
  let [connections, requests] = [0, 0];
  for (const pid of pids.slice(0, MAX_OLD_ASKED)) {
    // A process that ends meanwhile has no connections left.
    const info = await sockets.askMaster(`@!${pid} show info`, options).catch(() => '');
    const sessions = await sockets.askMaster(`@!${pid} show sess`, options).catch(() => '');
    connections += parseConnections(info);
    for (const [name, count] of parseStreams(sessions)) if (frontends.has(name)) requests += count;
  }
  return { processes: pids.length, connections, requests };
}

function told(traffic: Omit<HaproxyTraffic, 'requests' | 'summary'>): HaproxyTraffic {
  const { running, frontends, old } = traffic;
  const sum = (of: (each: HaproxyTraffic['frontends'][number]) => number): number =>
    frontends.reduce((all, each) => all + of(each), 0);
  const connections = sum((each) => each.connections) + old.connections;
  const requests = sum((each) => each.requests) + old.requests;
  const parts = [
    ...frontends.filter((each) => each.requests > 0).map((each) => `${each.name} ${each.requests}`),
    ...(old.requests > 0 ? [`in old processes ${old.requests}`] : []),
  ];
  const where = parts.length === 0 ? '' : ` (${parts.join(', ')})`;
  const summary = running
    ? `${connections} connection${connections === 1 ? '' : 's'}, ` +
      `${requests} open request${requests === 1 ? '' : 's'}${where}`
    : 'HAProxy does not run';
  return { ...traffic, requests, summary };
}
