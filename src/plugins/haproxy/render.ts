import { createHash } from 'node:crypto';
import {
  type AppHaproxy,
  type DbHaproxy,
  type Duty,
  CHALLENGE_PATH,
  CHECK_HOST,
  EDGE_HEALTH_PATH,
  type EdgeService,
  type HaproxyDesired,
  type PeerGroup,
  SERVICE_HEALTH_PATH,
  WELL_STATUSES,
} from './desired.ts';
import {
  dnsName,
  filePath,
  fingerprint,
  ipv4,
  pem,
  port,
  serial,
  thumbprint,
  token,
  urlPath,
} from './values.ts';

/** Where this instance's files and sockets lie. */
export interface Layout {
  readonly directory: string;
  readonly statsSocket: string;
  /** Whether this host has IPv6: where the kernel has none, HAProxy does not start with an address of it. */
  readonly ipv6?: boolean;
}

/** A server line, taken apart: what can be changed at run time stands apart from what can't (`options`). */
export interface WantedServer {
  readonly backend: string;
  readonly name: string;
  readonly address: string;
  readonly port: number;
  /** Everything after the address on its line. */
  readonly options: string;
  readonly duty: Duty;
  readonly why: string;
  /** The daemon saw it fail: out at once. The server's own check brings it back. */
  readonly failing?: boolean;
  /** See {@link PeerServer}. */
  readonly lastResort?: boolean;
  /** True for servers that come and go with the members; the others are part of the structure. */
  readonly peer: boolean;
}

export interface RenderedFile {
  readonly name: string;
  readonly content: string;
}

export interface Rendered {
  readonly files: readonly RenderedFile[];
  /** Digest of everything that only a reload can change. HAProxy reports it back in `show info`. */
  readonly structure: string;
  readonly servers: readonly WantedServer[];
  readonly frontends: readonly string[];
  /**
   * The lines of the list: serials, words that names of authorities end in, and with a plus the digests of certificates
   * that are good all the same.
   */
  readonly revoked: readonly { readonly mark: string; readonly address: string | undefined }[];
}

export const CONFIG_FILE = 'haproxy.cfg';
export const REVOKED_FILE = 'revoked.list';
/** Written before a reload so that the new worker starts with the health that the old one knew. */
export const STATE_FILE = 'servers.state';
/** A valid, empty `server-state-file`. Without a file HAProxy warns at each start. */
export const NO_STATE = '1\n';
/** The backend of the second, faster checks of `NAME`. It never gets a request. */
export const twinOf = (backend: string): string => `${backend}.unwatched`;

/**
 * The backend that serves for `NAME` while this host is too busy to check: then the checks of most servers end by
 * timeout, and it is this host that is slow, not they. Its own check is a bare connection, which the kernel of a busy
 * peer still accepts.
 */
export const panicOf = (backend: string): string => `${backend}.panic`;

export function isTwin(server: { backend: string }): boolean {
  return server.backend.endsWith(twinOf(''));
}

export function isPanic(server: { backend: string }): boolean {
  return server.backend.endsWith(panicOf(''));
}

/** HAProxy's name of the server on this host. No host name starts with `_`. */
export const LOCAL = '_local';
/**
 * A server that never gets a request. While it is ready, clients may create and delete databases: the one state that
 * can be told to the running process, that conditions can ask for (`nbsrv`) and that a reload keeps.
 */
export const DATABASE_SWITCH = { backend: 'permissions', name: 'databases' } as const;
/**
 * Tells the process that a daemon stands behind the switch. HAProxy forgets it by itself, since a daemon that does not
 * run notices no cut, and what it said last may be long untrue.
 */
export const VOUCH = `set table ${DATABASE_SWITCH.backend} key ${DATABASE_SWITCH.name}`;
/** Longer than systemd needs for a daemon that hangs: `WatchdogSec` is 20 s, and a start takes some more under load. */
const VOUCHED_SECONDS = 30;

/** A server that fails is out after 1.3 s: one failed check, then one more at the fast interval. */
const WATCHED_CHECK = 'check inter 1s fastinter 300ms downinter 1s fall 2 rise 2';
/**
 * Nobody else watches: a service that is gone is out after three refusals, 0.9 s. A check waits for its TLS handshake
 * as long as `inter` says, so that one who does not answer fails every 600 ms: by the third, a peer that stood still
 * for a second, which kills nobody in the membership either, answers again.
 */
const UNWATCHED_CHECK = 'check inter 300ms fall 3 rise 2';

/**
 * A connection without TLS: `port` has HAProxy leave TLS out. Who refuses, and whose host is gone, takes no part in a
 * panic. `timeout check` cannot help here: HAProxy bounds the handshake of a check by `inter` and `timeout connect`
 * alone.
 */
const panicCheck = (on: number): string =>
  `check port ${on} inter 1s fastinter 300ms downinter 1s fall 2 rise 1`;
/** A busy host takes long for its part of a handshake; a panic is no time to give up sooner. */
const PANIC_CONNECT = 'timeout connect 5s';

/**
 * Longer than a continuous `_changes` feed may idle (10 minutes), for old workers after a reload as well as for
 * the feeds themselves.
 */
const FEED_TIMEOUT = '15m';

/**
 * The files of an instance. Pure; the same input gives the same bytes. `refused` has the optional lines that are left
 * out.
 *
 * @throws PluginError `haproxy-value-refused` when a value could be read as anything but itself
 */
export function render(
  desired: HaproxyDesired,
  layout: Layout,
  refused: ReadonlySet<string> = new Set(),
): Rendered {
  const files = certificateFiles(desired, layout);
  const context: Context = {
    ...files.paths,
    layout,
    revokedList: `${layout.directory}/${REVOKED_FILE}`,
    servers: [],
  };
  const sections = desired.instance === 'app' ? appSections(desired, context) : dbSections(desired, context);
  const all = [defaultsSection(refused), ...sections, statsSection(desired)];
  const structure = digest(
    globalSection(desired, layout, '-') + all.map((section) => bare(section)).join('\n'),
  );
  const text = [globalSection(desired, layout, structure), ...all.map((section) => full(section))].join('\n');
  const revoked = [
    ...desired.revoked.map(({ serialHex, address }) => ({ mark: serial(serialHex), address })),
    // Good ones first: told to the process one by one, the other order would turn members away for a moment.
    ...desired.knownCertificates.map((known) => ({ mark: `+${fingerprint(known)}`, address: undefined })),
    ...desired.revokedAuthorities.map((word) => ({ mark: token('authority', word), address: undefined })),
  ];
  return {
    files: [
      ...files.files,
      {
        name: REVOKED_FILE,
        content: [...new Set(revoked.map((each) => `${each.mark}\n`))].sort().join(''),
      },
      {
        name: CONFIG_FILE,
        content: `# Written by bornemisza, which puts it back when it is edited.\n${text}`,
      },
    ],
    structure,
    servers: context.servers,
    frontends: all.flatMap((section) =>
      section.head.startsWith('frontend ') ? [section.head.slice('frontend '.length)] : [],
    ),
    revoked,
  };
}

interface Context {
  readonly layout: Layout;
  readonly node: string;
  readonly ca: string;
  readonly edge: string;
  readonly revokedList: string;
  readonly servers: WantedServer[];
}

interface Section {
  readonly head: string;
  readonly lines: readonly string[];
  readonly servers?: readonly WantedServer[];
}

const full = (section: Section): string =>
  [section.head, ...section.lines, ...(section.servers ?? []).map(serverLine)].join('\n  ').concat('\n');

/** The section without what the runtime API can change. */
const bare = (section: Section): string =>
  full({
    ...section,
    servers: (section.servers ?? []).filter((each) => !each.peer).map((each) => ({ ...each, duty: 'ready' })),
  });

/** `disabled` also for a server that drains: after a reload there is nothing to drain, and nothing new shall come. */
function serverLine(server: WantedServer): string {
  const out = server.duty === 'maint' || server.duty === 'drain' ? ' disabled' : '';
  return `server ${server.name} ${server.address}:${server.port} ${server.options}${out}`;
}

function certificateFiles(desired: HaproxyDesired, { directory }: Layout) {
  // Named by content: a file is written once and never changes, so the last good configuration keeps its own.
  const named = (kind: string, content: string): RenderedFile => ({
    name: `${kind}-${digest(content)}.pem`,
    content: pem(`${kind} certificate`, content),
  });
  const { certificates } = desired;
  const node = named('node', certificates.node);
  const ca = named('ca', certificates.ca);
  const edge = certificates.edge === undefined ? node : named('edge', certificates.edge);
  const path = (file: RenderedFile): string => filePath('certificate file', `${directory}/${file.name}`);
  return {
    files: edge === node ? [node, ca] : [node, ca, edge],
    paths: { node: path(node), ca: path(ca), edge: path(edge) },
  };
}

function globalSection(desired: HaproxyDesired, layout: Layout, structure: string): string {
  return full({
    head: 'global',
    lines: [
      // The only free text that `show info` gives back: tells which structure a process runs.
      `description bornemisza-${desired.instance}-${structure}`,
      // Not above err: HAProxy calls an empty backend an emergency, which the journal would shout to all terminals.
      'log stdout format short daemon err err',
      // 33 kB a connection with TLS on both sides: 270 MB at worst on a machine with 1 GB.
      'maxconn 8000',
      `stats socket ${filePath('stats socket', layout.statsSocket)} mode 660 level admin expose-fd listeners`,
      'stats timeout 30s',
      `server-state-file ${filePath('directory', layout.directory)}/${STATE_FILE}`,
      `hard-stop-after ${FEED_TIMEOUT}`,
      'ssl-default-bind-options ssl-min-ver TLSv1.2',
      'ssl-default-server-options ssl-min-ver TLSv1.2',
    ],
  });
}

function defaultsSection(refused: ReadonlySet<string>): Section {
  return {
    head: 'defaults bornemisza',
    lines: [
      'mode http',
      'log global',
      'option httplog',
      'option dontlognull',
      'option dontlog-normal',
      'option log-separate-errors',
      'load-server-state-from-file global',
      // An old worker closes a kept-alive connection after one more answer, not under the client's next request.
      'option idle-close-on-response',
      'timeout connect 1s',
      // Against slow senders of requests; the other timeouts start when the request is complete.
      'timeout http-request 10s',
      'timeout http-keep-alive 60s',
      'timeout client 2m',
      'timeout server 2m',
      'timeout queue 5s',
      'timeout tunnel 1h',
      'timeout check 2s',
      // Finds dead hosts under idle feeds and web sockets: 10 s + 3 × 5 s.
      'option clitcpka',
      'clitcpka-idle 10s',
      'clitcpka-intvl 5s',
      'clitcpka-cnt 3',
      'option srvtcpka',
      'srvtcpka-idle 10s',
      'srvtcpka-intvl 5s',
      'srvtcpka-cnt 3',
      ...RETRIES,
    ].filter((line) => !refused.has(line)),
  };
}

/** A request goes to another server only when it was not delivered: a replayed PUT would be a false conflict. */
const RETRIES = ['retries 3', 'option redispatch 1', 'retry-on conn-failure empty-response'];
/** A door without its service answers 503 at once; an edge has other doors to ask. */
const RETRY_AT_OTHERS = 'retry-on conn-failure empty-response 503';
/** A door has one server: to wait for it would hold what another door can serve. */
const NO_SECOND_TRY = 'retries 0';
/**
 * A door without its service fails fast, and the fastest gets the most by `leastconn`. Two errors in a row (500, 502,
 * 503, 504) bring the next check forward, and that one alone decides: a service that answers an error by itself stays.
 */
const CHECK_AFTER_ERRORS = 'observe layer7 error-limit 2 on-error sudden-death';
/** On the loopback a connection fails because nobody listens: one is enough to know. Its check brings it back. */
const OUT_AT_ONCE = 'observe layer4 error-limit 1 on-error mark-down';
/** An empty answer may come after the work was done, so only what can be done twice is sent again. */
const IDEMPOTENT_ONLY = 'http-request disable-l7-retry unless { method GET HEAD OPTIONS }';

function appSections(desired: AppHaproxy, context: Context): Section[] {
  const services = [...desired.services].sort(
    (a, b) => b.prefix.length - a.prefix.length || (a.name < b.name ? -1 : 1),
  );
  return [
    plainFrontend(desired, context.layout),
    edgeFrontend(desired, services, context),
    appDoor(desired, services, context),
    databaseFrontend(desired),
    NOTHING,
    ...services.flatMap((service) => serviceBackends(service, context)),
    ...databaseBackends(desired, context),
  ];
}

function binds(addresses: readonly string[], on: number, options: string, { ipv6 }: Layout): string[] {
  return addresses.flatMap((address) => {
    const end = options === '' ? '' : ` ${options}`;
    if (address === '*')
      return [
        `bind *:${port('port', on)}${end}`,
        ...(ipv6 === true ? [`bind :::${port('port', on)} v6only${end}`] : []),
      ];
    // A floating address need not be there yet.
    return [`bind ${ipv4('edge address', address)}:${port('port', on)} transparent${end}`];
  });
}

function plainFrontend({ edge }: AppHaproxy, layout: Layout): Section {
  const target =
    edge.httpsPort === 443
      ? 'scheme https'
      : `prefix https://%[req.hdr(host),field(1,:)]:${port('port', edge.httpsPort)}`;
  return {
    head: 'frontend plain',
    lines: [
      ...binds(edge.addresses, edge.httpPort, '', layout),
      `http-request set-log-level silent if { path ${EDGE_HEALTH_PATH} }`,
      `http-request return status 200 content-type text/plain string ok if { path ${EDGE_HEALTH_PATH} }`,
      ...challengeAnswer(edge.challengeThumbprint),
      // 308 keeps the method; a form that is posted here stays a post.
      `http-request redirect ${target} code 308`,
    ],
  };
}

/**
 * Answers a CA without state (RFC 8555 section 8.3): TOKEN.THUMBPRINT for each token of its form. No backslash, since
 * HAProxy takes it for its own; 128 characters are more than any CA's token has.
 */
function challengeAnswer(print: string | undefined): string[] {
  if (print === undefined) return [];
  const pattern = `^${CHALLENGE_PATH.replaceAll('.', '[.]')}[A-Za-z0-9_-]{1,128}$`;
  const said = `%[path,field(4,/)].${thumbprint(print)}`;
  return [
    `http-request return status 200 content-type text/plain lf-string ${said} if { path_reg ${pattern} }`,
  ];
}

/** Headers that only the edge may set: from outside they are lies. */
const FORWARDED = [
  'X-Forwarded-For',
  'X-Forwarded-Proto',
  'X-Forwarded-Host',
  'X-Forwarded-Port',
  'X-Real-IP',
  'Forwarded',
];

function edgeFrontend({ edge }: AppHaproxy, services: readonly EdgeService[], context: Context): Section {
  return {
    head: 'frontend edge',
    lines: [
      ...binds(edge.addresses, edge.httpsPort, `ssl crt ${context.edge} alpn h2,http/1.1`, context.layout),
      `http-request set-log-level silent if { path ${EDGE_HEALTH_PATH} }`,
      `http-request return status 200 content-type text/plain string ok if { path ${EDGE_HEALTH_PATH} }`,
      'http-request return status 404 if { path_beg /.well-known/bornemisza/ }',
      ...FORWARDED.map((header) => `http-request del-header ${header}`),
      'http-request set-header X-Forwarded-For %[src]',
      'http-request set-header X-Forwarded-Proto https',
      'http-request set-header X-Forwarded-Host %[req.hdr(host)] if { req.hdr(host) -m found }',
      ...(edge.hstsMaxAgeSeconds === undefined
        ? []
        : [
            `http-response set-header Strict-Transport-Security max-age=${Math.trunc(edge.hstsMaxAgeSeconds)}`,
          ]),
      ...routes(services, 'svc'),
    ],
  };
}

/** Longest prefix first; `/api` matches itself and what is below, not `/apiary`. */
function routes(services: readonly EdgeService[], to: 'svc' | 'local'): string[] {
  const lines = services.flatMap((service, index) => {
    const prefix = urlPath('path prefix', service.prefix).replace(/\/+$/, '');
    const backend = `${to}_${token('service name', service.name)}`;
    const asked = prefix === '' ? [''] : [`{ path ${prefix} }`, `{ path_beg ${prefix}/ }`];
    return [
      ...(to === 'svc' ? panicRoute(backend, `txn.well${index}`, asked) : slowRoute(backend, asked)),
      prefix === '' ? `default_backend ${backend}` : `use_backend ${backend} if ${asked.join(' or ')}`,
    ];
  });
  return lines.some((line) => line.startsWith('default_backend'))
    ? lines
    : [...lines, 'default_backend nothing'];
}

/**
 * More than half of the servers that accept connections fail their check: from then on all of them serve. Those that
 * the members' records take out are in neither count.
 */
function panicRoute(backend: string, variable: string, asked: readonly string[]): string[] {
  const panic = panicOf(backend);
  const most = `{ nbsrv(${panic}),sub(${variable}),sub(${variable}) gt 0 }`;
  return [
    `http-request set-var(${variable}) nbsrv(${backend})`,
    `use_backend ${panic} if ${asked.map((each) => `${each} ${most}`.trim()).join(' or ')}`,
  ];
}

/**
 * A service that accepts connections while its check fails is slow for all that HAProxy can tell, and slow is better
 * than refused: peers that have somebody better read it from the door's health path. The daemon knows one that answers
 * wrongly.
 */
function slowRoute(backend: string, asked: readonly string[]): string[] {
  const slow = `{ nbsrv(${backend}) eq 0 } { nbsrv(${panicOf(backend)}) gt 0 }`;
  return [`use_backend ${panicOf(backend)} if ${asked.map((each) => `${each} ${slow}`.trim()).join(' or ')}`];
}

/**
 * What a founder sees in the browser after the first set-up. It stands in double quotes of haproxy.cfg, so it has none.
 */
const NO_SERVICE_PAGE = [
  '<!doctype html><title>It works</title><h1>The edge works. No service has this address yet.</h1>',
  '<p>On each app node, write a file /etc/bornemisza/services.d/NAME.toml with name and port of your program,',
  'then run: sudo bornemisza config check &amp;&amp; sudo bornemisza reload</p>',
].join(' ');

/** What is asked for under no service's prefix. Not 503: waiting won't help. */
const NOTHING: Section = {
  head: 'backend nothing',
  lines: [
    `http-request return status 404 content-type text/html string "${NO_SERVICE_PAGE}" if { path / }`,
    'http-request return status 404',
  ],
};

/** Mutual TLS, this role only, nobody who was revoked: per request, so that kept-alive connections end as well. */
function door(address: string, on: number, role: string, context: Context): string[] {
  return [
    `bind ${ipv4('private address', address)}:${port('port', on)} ssl crt ${context.node} ca-file ` +
      `${context.ca} verify required alpn h2,http/1.1`,
    `http-request reject if { ssl_c_serial,hex -f ${context.revokedList} }`,
    // `CLUSTER authority WORD`, which is shorter than a serial: so one list, changed at runtime, holds it all.
    `http-request reject if { ssl_c_i_dn(CN),word(3,\\ ) -f ${context.revokedList} } !{ ` +
      `ssl_c_der,sha2(256),hex,regsub(^,+) -f ${context.revokedList} }`,
    `http-request deny deny_status 403 unless { ssl_c_s_dn(OU) -m str ${role} }`,
  ];
}

function appDoor(desired: AppHaproxy, services: readonly EdgeService[], context: Context): Section {
  const local = services.filter((service) => service.localPort !== undefined);
  const health = local.map(({ name }) => {
    const [path, backend] = [`${SERVICE_HEALTH_PATH}${token('service name', name)}`, `local_${name}`];
    return (
      `http-request return status 200 content-type text/plain string ok if { path ${path} } { ` +
      `nbsrv(${backend}) gt 0 }`
    );
  });
  return {
    head: 'frontend door',
    lines: [
      ...door(desired.privateAddress, desired.doorPort, 'app', context),
      `http-request set-log-level silent if { path_beg ${SERVICE_HEALTH_PATH} }`,
      ...health,
      `http-request return status 503 if { path_beg ${SERVICE_HEALTH_PATH} }`,
      ...routes(local, 'local'),
    ],
  };
}

function serviceBackends(service: EdgeService, context: Context): Section[] {
  const name = token('service name', service.name);
  const check = checkOf(`${SERVICE_HEALTH_PATH}${name}`);
  const lines = [...check, 'balance leastconn', RETRY_AT_OTHERS, IDEMPOTENT_ONLY];
  const peers = [
    ...peerBackends(`svc_${name}`, lines, service.peers, '', context),
    panicBackend(`svc_${name}`, lines, service.peers, context),
  ];
  if (service.localPort === undefined) return peers;
  const local = {
    backend: `local_${name}`,
    lines: [...checkOf(service.healthPath, service), NO_SECOND_TRY, IDEMPOTENT_ONLY],
    port: service.localPort,
    failing: service.answersWrongly === true,
  };
  return [...peers, localBackend(local, context), slowBackend(service, service.localPort, context)];
}

function slowBackend(service: EdgeService, on: number, context: Context): Section {
  const backend = panicOf(`local_${service.name}`);
  const server: WantedServer = {
    ...localServer(backend, on),
    options: panicCheck(on),
    ...(service.answersWrongly === true && { duty: 'maint', why: 'its answer to the check is wrong' }),
  };
  context.servers.push(server);
  return { head: `backend ${backend}`, lines: [NO_SECOND_TRY, IDEMPOTENT_ONLY], servers: [server] };
}

function checkOf(
  path: string,
  { healthHost: host = CHECK_HOST, healthStatus = [] }: Pick<EdgeService, 'healthHost' | 'healthStatus'> = {},
): string[] {
  const statuses = healthStatus.map((each) => {
    if (!Number.isInteger(each) || each < 100 || each > 599) throw new Error(`not a status: ${each}`);
    return each;
  });
  const { least, most } = WELL_STATUSES;
  return [
    'option httpchk',
    `http-check send meth GET uri ${urlPath('health path', path)} ver HTTP/1.1 hdr Host ` +
      dnsName('health host', host),
    `http-check expect status ${statuses.length > 0 ? statuses.join(',') : `${least}-${most}`}`,
  ];
}

/** The servers of a group once more, for a panic: only those that nothing but their check speaks against. */
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
    lines: [...lines.filter((line) => !CHECK_LINE.test(line)), PANIC_CONNECT],
    servers,
  };
}

function localBackend(
  of: { backend: string; lines: readonly string[]; port: number; failing?: boolean },
  context: Context,
): Section {
  const server = { ...localServer(of.backend, of.port), ...(of.failing === true && { failing: true }) };
  context.servers.push(server);
  return { head: `backend ${of.backend}`, lines: of.lines, servers: [server] };
}

function localServer(backend: string, on: number): WantedServer {
  return {
    backend,
    name: LOCAL,
    address: '127.0.0.1',
    port: port('port', on),
    options: `${WATCHED_CHECK} ${OUT_AT_ONCE}`,
    duty: 'ready',
    why: 'runs on this node',
    peer: false,
  };
}

const CHECK_LINE = /^(option httpchk|http-check)/;

/** A group's servers in one backend. @param checkOn their check, given their port */
function peerServers(
  backend: string,
  group: PeerGroup,
  checkOn: (on: number) => string,
  extra: string,
  context: Context,
): WantedServer[] {
  return [...group.servers]
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map((server) => ({
      backend,
      name: token('server name', server.name),
      address: ipv4(`address of ${server.name}`, server.address),
      port: port(`port of ${server.name}`, server.port),
      options: [
        `ssl verify required ca-file ${context.ca} crt ${context.node}`,
        `verifyhost ${dnsName('certificate name', `${server.name}.${group.verifySuffix}`)}`,
        `${checkOn(server.port)}${extra}`,
      ].join(' '),
      duty: server.duty,
      why: server.why,
      ...(server.lastResort === true && { lastResort: true }),
      peer: true,
    }));
}

/** A backend of peers and its twin with the faster checks. The twin's servers are enabled while they are needed. */
function peerBackends(
  backend: string,
  lines: readonly string[],
  group: PeerGroup,
  extra: string,
  context: Context,
  first: readonly WantedServer[] = [],
): Section[] {
  // A dynamic server (`add server`) doesn't infer check-ssl from ssl.
  const servers = [
    ...first,
    ...peerServers(backend, group, () => `${WATCHED_CHECK} ${CHECK_AFTER_ERRORS} check-ssl`, extra, context),
  ];
  const twins = peerServers(twinOf(backend), group, () => `${UNWATCHED_CHECK} check-ssl`, extra, context).map(
    (server) => ({
      ...server,
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

const FEEDS = `http-request set-timeout server ${FEED_TIMEOUT} if { path_end /_changes }`;

function databaseFrontend(desired: AppHaproxy): Section {
  return {
    head: 'frontend databases',
    lines: [
      `bind 127.0.0.1:${port('port', desired.databasePort)}`,
      QUIET_CHECKS,
      `timeout client ${FEED_TIMEOUT}`,
      ...panicRoute('db_nodes', 'txn.well', ['']),
      'default_backend db_nodes',
    ],
  };
}

/** Peers ask several times a second; while this node is down, each answer would be a line in the journal. */
const QUIET_CHECKS = 'http-request set-log-level silent if { path /_up }';

/** A CouchDB in maintenance answers 404 here: it finishes what it has and gets nothing new. */
const COUCHDB_CHECK = [
  'option httpchk',
  'http-check disable-on-404',
  `http-check send meth GET uri /_up ver HTTP/1.1 hdr Host ${CHECK_HOST}`,
  'http-check expect status 200',
];

function databaseBackends({ databases }: AppHaproxy, context: Context): Section[] {
  const lines = [...COUCHDB_CHECK, 'balance leastconn', RETRY_AT_OTHERS, IDEMPOTENT_ONLY, FEEDS];
  return [
    ...peerBackends('db_nodes', lines, databases, '', context),
    panicBackend('db_nodes', lines, databases, context),
  ];
}

/** Seconds; a cut that heals is over for CouchDB in about as long. */
const ASK_AGAIN_AFTER = 5;
/** As CouchDB puts it. Between single quotes in the file, so it holds none. */
const refusal = (reason: string): string => JSON.stringify({ error: 'service unavailable', reason });
const DISAGREEMENT = refusal(
  'Not all db nodes are connected and agree, and of a database that is created or deleted on both sides ' +
    'of a cut one side loses its documents. Ask again later: `bornemisza status` on a db node says who is ' +
    'missing and what to do.',
);
const silence = (address: string): string =>
  refusal(
    `The daemon of the db node ${address} has been silent for ${VOUCHED_SECONDS} s, so nobody there ` +
      'would notice that it is cut off, and of a database that is created or deleted on both sides of a ' +
      'cut one side loses its documents. Ask again, as another db node may answer, and start it there: ' +
      '`systemctl start bornemisza@db`.',
  );

/**
 * Creating and deleting a database, and nothing else: CouchDB splits the path at slashes, however many, before it
 * decodes it, takes a method from a header of a POST, and has one other thing to DELETE at the top, the session.
 */
const DATABASE_EDITS = [
  '{ method PUT DELETE }',
  '{ method POST } { req.hdr(X-HTTP-Method-Override) -m found }',
].map((method) => `${method} { path_reg ^/+[^/]+/*$ } !{ path /_session }`);

function refuseDatabaseEdits({ privateAddress }: DbHaproxy): string[] {
  const { backend, name } = DATABASE_SWITCH;
  const reasons = [
    [`!{ str(${name}),in_table(${backend}) }`, silence(ipv4('private address', privateAddress))],
    [`{ nbsrv(${backend}) eq 0 }`, DISAGREEMENT],
  ];
  return reasons.flatMap(([condition, body]) =>
    DATABASE_EDITS.map(
      (edit) =>
        `http-request return status 503 content-type application/json hdr Retry-After ${ASK_AGAIN_AFTER} ` +
        `string '${body}' if ${edit} ${condition}`,
    ),
  );
}

function databaseSwitch({ databases, couchdbPort }: DbHaproxy, context: Context): Section {
  const { given, why } = databases ?? { given: false, why: 'not known yet' };
  const server: WantedServer = {
    ...DATABASE_SWITCH,
    address: '127.0.0.1',
    port: port('port', couchdbPort),
    options: 'no-check',
    duty: given ? 'ready' : 'maint',
    why: given ? why : `creating and deleting databases is refused: ${why}`,
    // What comes and goes at run time, so no part of the structure.
    peer: true,
  };
  context.servers.push(server);
  const vouched = `stick-table type string size 1 expire ${VOUCHED_SECONDS}s`;
  return { head: `backend ${server.backend}`, lines: ['no log', vouched], servers: [server] };
}

/**
 * CouchDB locks an account by name and address, and reads the last address of this header from a peer on loopback.
 * Without it all clients and the daemon are 127.0.0.1 to CouchDB, and a client's wrong passwords lock the daemon out.
 */
const CLIENT_ADDRESS = 'http-request set-header X-Forwarded-For %[src]';

function dbSections(desired: DbHaproxy, context: Context): Section[] {
  const lines = [...COUCHDB_CHECK, 'balance leastconn', 'option allbackups', IDEMPOTENT_ONLY, FEEDS];
  const only = {
    backend: 'couchdb_local',
    lines: [...COUCHDB_CHECK, IDEMPOTENT_ONLY, FEEDS],
    port: desired.couchdbPort,
  };
  return [
    {
      head: 'frontend app_door',
      lines: [
        ...door(desired.privateAddress, desired.appDoorPort, 'app', context),
        QUIET_CHECKS,
        `timeout client ${FEED_TIMEOUT}`,
        CLIENT_ADDRESS,
        ...refuseDatabaseEdits(desired),
        // The asker wants to know about this node, not about its peers.
        'use_backend couchdb_local if { path /_up }',
        'default_backend couchdb',
      ],
    },
    {
      head: 'frontend peer_door',
      lines: [
        ...door(desired.privateAddress, desired.peerDoorPort, 'db', context),
        QUIET_CHECKS,
        `timeout client ${FEED_TIMEOUT}`,
        // What failed over carries the client's address from the other db node's door.
        `${CLIENT_ADDRESS} unless { req.hdr(X-Forwarded-For) -m found }`,
        // What fails over is as old as the word of the door that it came by.
        ...refuseDatabaseEdits(desired),
        'default_backend couchdb_local',
      ],
    },
    ...peerBackends('couchdb', lines, desired.peers, ' backup', context, [
      localServer('couchdb', desired.couchdbPort),
    ]),
    localBackend(only, context),
    databaseSwitch(desired, context),
  ];
}

function statsSection(desired: HaproxyDesired): Section {
  return {
    head: 'frontend stats',
    lines: [
      `bind ${ipv4('private address', desired.privateAddress)}:${port('port', desired.statsPort)}`,
      'stats enable',
      'stats uri /',
      'stats refresh 5s',
      'stats hide-version',
    ],
  };
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

/** The peer and local servers of a configuration that `render` wrote: what a rollback has to bring back. */
export function serversIn(config: string): WantedServer[] {
  const servers: WantedServer[] = [];
  let backend: string | undefined;
  for (const line of config.split('\n')) {
    const head = /^(\w+)(?: (\S+))?/.exec(line);
    if (head !== null) backend = head[1] === 'backend' ? head[2] : undefined;
    const found = /^\s+server (\S+) (\d+\.\d+\.\d+\.\d+):(\d+) (.*?)( disabled)?$/.exec(line);
    if (found === null || backend === undefined) continue;
    const [, name = '', address = '', on = '', options = '', disabled] = found;
    const duty = disabled === undefined ? 'ready' : 'maint';
    servers.push({
      backend,
      name,
      address,
      port: Number(on),
      options,
      duty,
      why: 'last good configuration',
      peer: name !== LOCAL,
    });
  }
  return servers;
}
