import {
  type AppHaproxy,
  CHECK_HOST,
  type EdgeService,
  type PeerGroup,
  SERVICE_HEALTH_PATH,
} from './desired.ts';
import { boundLines, limitLines, serverTimeout } from './limits.ts';
import { type WantedServer, twinOf, ownOf, panicOf, watchOf, LOCAL, PASSED_ON, RING } from './rendered.ts';
import { type Context, type Section, FEEDS, IDEMPOTENT_ONLY } from './sections.ts';
import { checkOf, checkTimes, PEER_CHECK, WATCHED_CHECK } from './service-check.ts';
import { dnsName, ipv4, port, token } from './values.ts';

/** Backends, their servers and their checks. */

/**
 * For servers without another watcher: a service that is gone is out after three refusals, 0.9 s. A check waits `inter`
 * for its TLS handshake, so a silent server fails every 600 ms: by the third failure, a peer that was stopped for a
 * second, which membership also tolerates, answers again.
 */
const UNWATCHED_CHECK = 'check inter 300ms fall 3 rise 2';

/**
 * A connection without TLS: `port` has HAProxy leave TLS out. Servers that refuse, or whose host is gone, take no part
 * in a panic. `timeout check` cannot help here: HAProxy bounds the handshake of a check by `inter` and `timeout
 * connect` alone.
 */
const panicCheck = (on: number): string =>
  `check port ${on} inter 1s fastinter 300ms downinter 1s fall 2 rise 1`;

/** On the loopback a bare connection is cheap: HAProxy misses a service that ended within 100 ms. */
const WATCH_CHECK = 'check inter 100ms downinter 1s fall 2 rise 1';

/**
 * HAProxy gives a connection `inter` to open. Each failed check before the last one is reported, so three give the
 * daemon three occasions.
 */
const HOST_CHECK = 'check inter 200ms downinter 1s fall 3 rise 1';

/** Writes each failed check, not only the last one, into the ring that the daemon reads. */
const FAILURES_TOLD = ['option log-health-checks', `log ring@${RING} format raw daemon notice`];

/** A door without its service answers 503 at once; an edge can ask other doors. */
const RETRY_AT_OTHERS = 'retry-on conn-failure empty-response 503';

/**
 * Also for the first request of a client: both ends are ours, so an idle connection is not closed under a request, and
 * a handshake with two certificates for each new visitor was four fifths of HAProxy's work.
 */
const REUSE = 'http-reuse always';

/**
 * A service closes idle connections when it ends, and many do after some seconds: a request that is sent at that moment
 * is lost, unless it can be repeated. On the loopback a new one costs both sides 0.07 ms together.
 */
const NEW_CONNECTION = 'option http-server-close';

/** Nobody else can answer here, and waiting does not help. */
const NO_SECOND_TRY = 'retries 0';

/**
 * A request that found nobody at this node's own instance was not delivered, so another node can have it, whatever its
 * method. The edge cannot know that: by then it has sent the request. One refusal here, and one at a peer.
 */
const PASS_ON = ['retries 2', 'option allbackups'];

const MARK = `http-request set-header ${PASSED_ON} 1`;

/** No check: each door would check all others for a case that is over when the edges know. */
const UNCHECKED = 'backup';

/**
 * A door without its service fails fast, and `leastconn` prefers the fastest. Two errors in a row (500, 502, 503, 504)
 * bring the next check forward, and only that check decides: a service that itself answers with errors stays.
 */
const CHECK_AFTER_ERRORS = 'observe layer7 error-limit 2 on-error sudden-death';

/** On loopback a connection fails only if nobody listens: one failure is enough. The check brings it back. */
const OUT_AT_ONCE = 'observe layer4 error-limit 1 on-error mark-down';

export function serviceBackends(service: EdgeService, context: Context): Section[] {
  const name = token('service name', service.name);
  const check = checkOf(`${SERVICE_HEALTH_PATH}${name}`);
  const lines = [
    ...check,
    'balance leastconn',
    REUSE,
    RETRY_AT_OTHERS,
    IDEMPOTENT_ONLY,
    ...boundLines(service),
    ...limitLines(service),
  ];
  const peers = [
    ...peerBackends(`svc_${name}`, lines, service.peers, '', context),
    panicBackend(`svc_${name}`, lines, service.peers, context),
  ];
  if (service.localPort === undefined) return peers;
  const local = {
    backend: `local_${name}`,
    lines: [
      ...checkOf(service.healthPath, service),
      ...FAILURES_TOLD,
      ...PASS_ON,
      NEW_CONNECTION,
      IDEMPOTENT_ONLY,
      MARK,
      ...serverTimeout(service.timeoutSeconds),
    ],
    others: otherDoors(`local_${name}`, service.peers, context),
    port: service.localPort,
    times: checkTimes(service.health),
    failing: service.answersWrongly === true,
  };
  return [
    ...peers,
    localBackend(local, context),
    watchBackend(local, context),
    slowBackend(service, service.localPort, context),
    ownBackend(service, service.localPort, context),
  ];
}

/** It gets no request and decides nothing: a healthy but busy host can fail a check as short as this one. */
function watchBackend(local: { backend: string; port: number }, context: Context): Section {
  const backend = watchOf(local.backend);
  const server = { ...localServer(backend, local.port), options: WATCH_CHECK };
  context.servers.push(server);
  return { head: `backend ${backend}`, lines: ['no log', ...FAILURES_TOLD], servers: [server] };
}

function slowBackend(service: EdgeService, on: number, context: Context): Section {
  const backend = panicOf(`local_${service.name}`);
  const server: WantedServer = {
    ...localServer(backend, on),
    options: `${panicCheck(on)} ${OUT_AT_ONCE}`,
    ...WRONGLY(service),
  };
  // Right after its end it still counts as slow: what it does not get goes to others here as well.
  const servers = [server, ...otherDoors(backend, service.peers, context)];
  context.servers.push(...servers);
  const lines = [...PASS_ON, NEW_CONNECTION, IDEMPOTENT_ONLY, MARK, ...serverTimeout(service.timeoutSeconds)];
  return { head: `backend ${backend}`, lines, servers };
}

/** For what another door has passed on: this node's own instance or nobody. The connection itself is the check. */
function ownBackend(service: EdgeService, on: number, context: Context): Section {
  const backend = ownOf(`local_${service.name}`);
  const server: WantedServer = { ...localServer(backend, on), options: 'no-check', ...WRONGLY(service) };
  context.servers.push(server);
  const lines = [NO_SECOND_TRY, NEW_CONNECTION, IDEMPOTENT_ONLY, ...serverTimeout(service.timeoutSeconds)];
  return { head: `backend ${backend}`, lines, servers: [server] };
}

const WRONGLY = ({ answersWrongly }: EdgeService) =>
  answersWrongly === true ? ({ duty: 'maint', why: 'it answers the check wrongly' } as const) : {};

/**
 * The other nodes' doors, for what this node's own instance did not get. A silent one is one attempt that waits; a
 * dead daemon alone changes nothing here.
 */
function otherDoors(backend: string, group: PeerGroup, context: Context): WantedServer[] {
  const servers = group.servers.filter(({ address }) => address !== context.privateAddress);
  return peerServers(backend, { ...group, servers }, () => UNCHECKED, '', context).map((server) => ({
    ...server,
    duty: server.duty === 'drain' || server.duty === 'maint' ? ('maint' as const) : ('ready' as const),
  }));
}

/** The servers of a group again, for a panic: only those with no problem but their check. */
function panicBackend(
  backend: string,
  lines: readonly string[],
  group: PeerGroup,
  context: Context,
): Section {
  const servers = peerServers(panicOf(backend), group, panicCheck, '', context).map((server) => ({
    ...server,
    duty: server.duty === 'ready' || server.lastResort === true ? ('ready' as const) : ('maint' as const),
  }));
  context.servers.push(...servers);
  return {
    head: `backend ${panicOf(backend)}`,
    lines: lines.filter((line) => !CHECK_LINE.test(line)),
    servers,
  };
}

export function localBackend(
  of: {
    backend: string;
    lines: readonly string[];
    port: number;
    failing?: boolean;
    times?: string;
    others?: readonly WantedServer[];
  },
  context: Context,
): Section {
  const server = {
    ...localServer(of.backend, of.port, of.times),
    ...(of.failing === true && { failing: true }),
  };
  const servers = [server, ...(of.others ?? [])];
  context.servers.push(...servers);
  return { head: `backend ${of.backend}`, lines: of.lines, servers };
}

export function localServer(backend: string, on: number, times = WATCHED_CHECK): WantedServer {
  return {
    backend,
    name: LOCAL,
    address: '127.0.0.1',
    port: port('port', on),
    options: `${times} ${OUT_AT_ONCE}`,
    duty: 'ready',
    why: 'runs on this node',
    peer: false,
  };
}

/**
 * Whether hosts answer at all, which their kernels do even while their HAProxy is busy or stopped. It decides nothing:
 * the daemon asks too.
 */
export function hostWatch(backend: string, group: PeerGroup, context: Context): Section {
  const of = watchOf(backend);
  const servers = byName(group).map(
    (server): WantedServer => ({
      ...placeOf(of, server),
      options: HOST_CHECK,
      // Whatever it serves: it can fall silent while it is down, and be up again soon.
      duty: 'ready',
      why: 'whether its host answers',
      peer: true,
    }),
  );
  context.servers.push(...servers);
  return { head: `backend ${of}`, lines: ['no log', ...FAILURES_TOLD], servers };
}

/** A server that joins or comes back has cold caches: under load it gets its full share only after this time. */
const RAMP = 'slowstart 5s';

const CHECK_LINE = /^(option httpchk|http-check)/;

/**
 * The name that a server's certificate must hold. From 3.3 on HAProxy sends the request's Host as server name if none
 * is set, and verifies that one in place of `verifyhost`.
 */
const named = (name: string): string => `verifyhost ${name} sni str(${name}) check-sni ${name}`;

const byName = ({ servers }: PeerGroup) => [...servers].sort((a, b) => (a.name < b.name ? -1 : 1));

const placeOf = (backend: string, server: PeerGroup['servers'][number]) => ({
  backend,
  name: token('server name', server.name),
  address: ipv4(`address of ${server.name}`, server.address),
  port: port(`port of ${server.name}`, server.port),
});

/** A group's servers in one backend. @param checkOn their check, given their port */
function peerServers(
  backend: string,
  group: PeerGroup,
  checkOn: (on: number) => string,
  extra: string,
  context: Context,
): WantedServer[] {
  return byName(group).map((server) => ({
    ...placeOf(backend, server),
    options: [
      `ssl verify required ca-file ${context.ca} crt ${context.node}`,
      named(dnsName('certificate name', `${server.name}.${group.verifySuffix}`)),
      `${checkOn(server.port)}${extra}`,
    ].join(' '),
    duty: server.duty,
    why: server.why,
    ...(server.lastResort === true && { lastResort: true }),
    ...(server.silent === true && { silent: true }),
    peer: true,
  }));
}

/** A backend of peers and its twin with the faster checks. The twin's servers are enabled while they are needed. */
export function peerBackends(
  backend: string,
  lines: readonly string[],
  group: PeerGroup,
  extra: string,
  context: Context,
  first: readonly WantedServer[] = [],
): Section[] {
  // CouchDB's check also reports its maintenance.
  const watched = backend.startsWith('svc_') ? PEER_CHECK : WATCHED_CHECK;
  // A dynamic server (`add server`) doesn't infer check-ssl from ssl.
  const servers = [
    ...first,
    ...peerServers(
      backend,
      group,
      () => `${watched} ${CHECK_AFTER_ERRORS} check-ssl${extra === '' ? ` ${RAMP}` : ''}`,
      extra,
      context,
    ),
  ];
  const twins = peerServers(twinOf(backend), group, () => `${UNWATCHED_CHECK} check-ssl`, extra, context).map(
    (server) => ({
      ...server,
      ...(server.silent === true && { silent: false }),
      duty: server.duty === 'out-when-down' ? ('ready' as const) : ('maint' as const),
    }),
  );
  context.servers.push(...servers, ...twins);
  return [
    {
      head: `backend ${backend}`,
      lines: [`# certificates: NAME.${dnsName('certificate suffix', group.verifySuffix)}`, ...lines],
      servers,
    },
    {
      head: `backend ${twinOf(backend)}`,
      lines: ['no log', ...lines.filter((line) => CHECK_LINE.test(line))],
      servers: twins,
    },
  ];
}

/** A CouchDB in maintenance answers 404 here: it finishes what it has and gets nothing new. */
export const COUCHDB_CHECK = [
  'option httpchk',
  'http-check disable-on-404',
  `http-check send meth GET uri /_up ver HTTP/1.1 hdr Host ${CHECK_HOST}`,
  'http-check expect status 200',
];

export function databaseBackends({ databases }: AppHaproxy, context: Context): Section[] {
  const lines = [...COUCHDB_CHECK, 'balance leastconn', RETRY_AT_OTHERS, IDEMPOTENT_ONLY, FEEDS];
  return [
    ...peerBackends('db_nodes', lines, databases, '', context),
    panicBackend('db_nodes', lines, databases, context),
    hostWatch('db_nodes', databases, context),
  ];
}
