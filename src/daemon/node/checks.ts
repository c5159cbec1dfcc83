import { CHECK_HOST, EDGE_HEALTH_PATH, WELL_STATUSES } from '../../plugins/haproxy/desired.ts';
import { announces, type Config } from '../config/config.ts';
import type { Check, HealthOptions } from '../health/health.ts';
import { COUCHDB_MEANINGS } from '../health/meanings.ts';
import { serviceCheck } from '../health/service-check.ts';
import type { LocalState } from '../local-state.ts';

/** Checks whether an app node finds the databases. */
export const DATABASE_CHECK = 'database';
/**
 * systemd restarts HAProxy in 0.2 s; with the default times this tolerates 0.4 s. A withdrawal and a return would move
 * more connections than that restart cuts.
 */
const HAPROXY_PATIENCE = 3;
/** HAProxy sends a service the same request: otherwise the two could disagree. */
const asHaproxy = { kind: 'http', host: CHECK_HOST, statuses: WELL_STATUSES } as const;
/** For CouchDB only 200 is healthy, as for HAProxy. */
const asCouchDb = {
  ...asHaproxy,
  statuses: { least: 200, most: 200 },
  meanings: COUCHDB_MEANINGS,
} as const;

/** How often they run, and how many results make a verdict. */
export function healthOptions({ health }: Config): HealthOptions {
  return {
    rise: health.rise,
    fall: health.fall,
    returnDelayMs: health.damping_ms,
    intervalMs: health.interval_ms,
    fastIntervalMs: health.fast_interval_ms,
    timeoutMs: health.timeout_ms,
  };
}

/**
 * The checks of one node. An app node is up while its edge answers (on the floating IP itself, if BGP announces it),
 * while it finds a database (once it has found one: a dependency that was never there is no failure) and while each
 * `required` service is healthy. A db node is up while its CouchDB serves and its door is open.
 */
export function checksFor(
  config: Config,
  roster: readonly { readonly role: string }[],
  { databaseFound }: Pick<LocalState, 'databaseFound'>,
): Check[] {
  if (config.role === 'db') return dbChecks(config);
  const checks = appChecks(config, databaseFound);
  return roster.some((each) => each.role === 'db')
    ? checks
    : checks.filter(({ name }) => name !== DATABASE_CHECK);
}

function appChecks(config: Config, databaseFound: boolean): Check[] {
  const { edge, floating, services } = config;
  // In mode `layer2` only one node has them; the other nodes check on loopback.
  const [first] = announces(config) ? floating.addresses : [];
  const edgeCheck: Check = {
    name: 'haproxy',
    required: true,
    patience: HAPROXY_PATIENCE,
    target: {
      ...asHaproxy,
      tls: true,
      address: first ?? '127.0.0.1',
      port: edge.https_port,
      path: EDGE_HEALTH_PATH,
      // Before the address is on this host, the request would go to another holder.
      onlyIfLocal: first !== undefined,
    },
  };
  const databaseCheck: Check = {
    name: DATABASE_CHECK,
    required: databaseFound,
    target: { ...asCouchDb, address: '127.0.0.1', port: edge.database_port, path: '/_up' },
  };
  const own = services.filter(({ local }) => local).map((service) => serviceCheck(service, asHaproxy));
  return [edgeCheck, databaseCheck, ...own];
}

function dbChecks({ couchdb, network }: Config): Check[] {
  return [
    {
      name: 'couchdb',
      required: true,
      target: { ...asCouchDb, address: '127.0.0.1', port: couchdb.http_port, path: '/_up' },
    },
    {
      name: 'haproxy',
      required: true,
      target: { kind: 'tcp', address: network.private_address, port: couchdb.door_port },
    },
  ];
}
