import { databaseBackends, hostWatch, serviceBackends } from './backends.ts';
import {
  type AppHaproxy,
  CHALLENGE_PATH,
  EDGE_HEALTH_PATH,
  EDGE_SERVES_PATH,
  type EdgeService,
  SERVICE_HEALTH_PATH,
} from './desired.ts';
import { limitSections } from './limits.ts';
import { type Layout, LOCAL, ownOf, panicOf, PASSED_ON } from './rendered.ts';
import { REQUEST_LOG_RULES, REQUEST_LOG_TARGET, requestLogSection } from './request-log.ts';
import {
  type Context,
  type Section,
  FAILURES_RING,
  FEED_TIMEOUT,
  door,
  errorLines,
  QUIET_CHECKS,
} from './sections.ts';
import { ipv4, port, thumbprint, token, urlPath } from './values.ts';

/** What an app node’s HAProxy listens to: the edge, the door for other edges, the databases on loopback. */

export function appSections(desired: AppHaproxy, context: Context): Section[] {
  const services = [...desired.services].sort(
    (a, b) => b.prefix.length - a.prefix.length || (a.name < b.name ? -1 : 1),
  );
  return [
    FAILURES_RING,
    plainFrontend(desired, context.layout),
    edgeFrontend(desired, services, context),
    appDoor(desired, services, context),
    databaseFrontend(desired),
    NOTHING,
    ...services.flatMap((service) => serviceBackends(service, context)),
    ...databaseBackends(desired, context),
    hostWatch('door', desired.doors, context),
    ...limitSections(desired, context),
    requestLogSection(desired, context),
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

/** An edge without databases answers visitors but cannot serve them. A cluster may have no databases at all. */
function servesAnswer(databases: AppHaproxy['databases']): string[] {
  const asked = `{ path ${EDGE_SERVES_PATH} }`;
  const ok = `http-request return status 200 content-type text/plain string ok if ${asked}`;
  const some = ['db_nodes', panicOf('db_nodes')].map((backend) => `${ok} { nbsrv(${backend}) gt 0 }`);
  return [
    `http-request set-log-level silent if ${asked}`,
    ...(databases.servers.length === 0 ? [ok] : some),
    `http-request return status 503 if ${asked}`,
  ];
}

/** Headers that only the edge may set: clients could forge them. */
const FORWARDED = [
  'X-Forwarded-For',
  'X-Forwarded-Proto',
  'X-Forwarded-Host',
  'X-Forwarded-Port',
  'X-Real-IP',
  'Forwarded',
  PASSED_ON,
];

function edgeFrontend(
  { edge, databases }: AppHaproxy,
  services: readonly EdgeService[],
  context: Context,
): Section {
  return {
    head: 'frontend edge',
    lines: [
      ...binds(edge.addresses, edge.httpsPort, `ssl crt ${context.edge} alpn h2,http/1.1`, context.layout),
      ...REQUEST_LOG_TARGET,
      ...errorLines(context),
      `http-request set-log-level silent if { path ${EDGE_HEALTH_PATH} }`,
      `http-request return status 200 content-type text/plain string ok if { path ${EDGE_HEALTH_PATH} }`,
      ...servesAnswer(databases),
      ...REQUEST_LOG_RULES,
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
      ...context.snippets.flatMap((snippet) => snippet.edge),
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
 * the members' records take out are in neither count. Subtracted once: before 2.8 the sum of two negative numbers is
 * HAProxy's greatest one (its issue 2216).
 */
function panicRoute(backend: string, variable: string, asked: readonly string[]): string[] {
  const panic = panicOf(backend);
  const most = `{ nbsrv(${panic}),sub(${variable}) gt 0 }`;
  return [
    `http-request set-var(${variable}) nbsrv(${backend}),mul(2)`,
    `use_backend ${panic} if ${asked.map((each) => `${each} ${most}`.trim()).join(' or ')}`,
  ];
}

/**
 * If a service accepts connections but fails its check, HAProxy can only assume that it is slow, and slow is better
 * than refused: peers with a better server see that from the door's health path. The daemon knows an instance that
 * answers wrongly.
 */
function slowRoute(backend: string, asked: readonly string[]): string[] {
  const slow = `!${isUp(backend)} ${isUp(panicOf(backend))}`;
  const where = (condition: string): string =>
    asked.map((each) => `${each} ${condition}`.trim()).join(' or ');
  return [
    `use_backend ${ownOf(backend)} if ${where(CAME_BY_A_DOOR)}`,
    `use_backend ${panicOf(backend)} if ${where(slow)}`,
  ];
}

/** Its backend without other nodes: what one door passes on, the next one does not. */
const CAME_BY_A_DOOR = `{ req.hdr(${PASSED_ON}) -m found }`;

/** This node's own instance: the backend also has the doors of other nodes. */
const isUp = (backend: string): string => `{ srv_is_up(${backend}/${LOCAL}) }`;

/** The page in the browser after the first set-up. It is in double quotes in haproxy.cfg, so it has none. */
const NO_SERVICE_PAGE = [
  '<!doctype html><title>It works</title><h1>The edge works. No service has this address yet.</h1>',
  '<p>On each app node, write a file /etc/bornemisza/services.d/NAME.toml with name and port of your program,',
  'then run: sudo bornemisza config check &amp;&amp; sudo bornemisza reload</p>',
].join(' ');

/** For paths without a service. Not 503, as waiting does not help. */
const NOTHING: Section = {
  head: 'backend nothing',
  lines: [
    `http-request return status 404 content-type text/html string "${NO_SERVICE_PAGE}" if { path / }`,
    'http-request return status 404',
  ],
};

function appDoor(desired: AppHaproxy, services: readonly EdgeService[], context: Context): Section {
  const local = services.filter((service) => service.localPort !== undefined);
  const health = local.map(({ name }) => {
    const [path, backend] = [`${SERVICE_HEALTH_PATH}${token('service name', name)}`, `local_${name}`];
    return `http-request return status 200 content-type text/plain string ok if { path ${path} } ${isUp(backend)}`;
  });
  return {
    head: 'frontend door',
    lines: [
      ...door(desired.privateAddress, desired.doorPort, 'app', context),
      // Another edge passes the answer on.
      ...errorLines(context),
      `http-request set-log-level silent if { path_beg ${SERVICE_HEALTH_PATH} }`,
      ...health,
      `http-request return status 503 if { path_beg ${SERVICE_HEALTH_PATH} }`,
      ...routes(local, 'local'),
    ],
  };
}

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
