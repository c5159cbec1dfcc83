import type { HaproxyDesired } from './desired.ts';
import { EXPORTER, IDLE_CLOSE } from './optional.ts';
import { type Layout, type WantedServer, RING, STATE_FILE } from './rendered.ts';
import type { UsedSnippet } from './snippets.ts';
import { filePath, ipv4, password, port, token } from './values.ts';

/** The sections of haproxy.cfg that both instances have, and what their sections share. */

/**
 * Longer than a continuous `_changes` feed may idle (10 minutes), for old workers after a reload as well as for
 * the feeds themselves.
 */
export const FEED_TIMEOUT = '15m';

export interface Context {
  readonly layout: Layout;
  readonly privateAddress: string;
  readonly node: string;
  readonly ca: string;
  readonly edge: string;
  /** The founder's page for errors; undefined: HAProxy's own. */
  readonly page: string | undefined;
  readonly revokedList: string;
  readonly servers: WantedServer[];
  /** Optional lines that are left out. */
  readonly refused: ReadonlySet<string>;
  readonly snippets: readonly UsedSnippet[];
}

export interface Section {
  readonly head: string;
  readonly lines: readonly string[];
  readonly servers?: readonly WantedServer[];
}

export const full = (section: Section): string =>
  [section.head, ...section.lines, ...(section.servers ?? []).map(serverLine)].join('\n  ').concat('\n');

/** The section without what the runtime API can change. */
export const bare = (section: Section): string =>
  full({
    ...section,
    servers: (section.servers ?? []).filter((each) => !each.peer).map((each) => ({ ...each, duty: 'ready' })),
  });

/** `disabled` also for a draining server: after a reload there is nothing to drain, and no new requests must come. */
function serverLine(server: WantedServer): string {
  const out = server.duty === 'maint' || server.duty === 'drain' ? ' disabled' : '';
  return `server ${server.name} ${server.address}:${server.port} ${server.options}${out}`;
}

export function globalSection(desired: HaproxyDesired, layout: Layout, structure: string): string {
  return full({
    head: 'global',
    lines: [
      // The only free text that `show info` gives back: tells which structure a process runs.
      `description bornemisza-${desired.instance}-${structure}`,
      ...(desired.instance === 'app' && desired.sharing !== undefined
        ? [`localpeer ${token('host', desired.sharing.host)}`]
        : []),
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

/** As `option httplog`, without the query, which often has secrets. */
const LOG_FORMAT =
  'log-format "%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %CC %CS %tsc %ac/%fc/%bc/%sc/%rc %sq/%bq ' +
  '%hr %hs \\"%HM %HP %HV\\""';

export function defaultsSection(refused: ReadonlySet<string>): Section {
  return {
    head: 'defaults bornemisza',
    lines: [
      'mode http',
      'log global',
      LOG_FORMAT,
      'option dontlognull',
      'option dontlog-normal',
      'option log-separate-errors',
      'load-server-state-from-file global',
      // An old worker closes a kept-alive connection after one more answer, not under the client's next request.
      IDLE_CLOSE,
      CONNECT,
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

/**
 * With the TLS handshake. Less than a busy host needs for that makes it busier: each attempt that is given up is one
 * more handshake. TCP repeats a lost SYN after 1 s and after 3 s.
 */
const CONNECT = 'timeout connect 4s';

/**
 * A request goes to another server only when it was not delivered: a replayed PUT would be a false conflict. At most
 * three servers are tried; refusals cost no time.
 */
const RETRIES = ['retries 2', 'option redispatch 1', 'retry-on conn-failure empty-response'];

/** An empty answer may come after the work was done, so only what can be done twice is sent again. */
export const IDEMPOTENT_ONLY = 'http-request disable-l7-retry unless { method GET HEAD OPTIONS }';

/** Mutual TLS, only this role, nobody revoked: checked per request, so that kept-alive connections end as well. */
export function door(address: string, on: number, role: string, context: Context): string[] {
  return [
    `bind ${ipv4('private address', address)}:${port('port', on)} ssl crt ${context.node} ca-file ` +
      `${context.ca} verify required alpn h2,http/1.1`,
    ...barred(context).map((each) => `http-request reject if ${each}`),
    `http-request deny deny_status 403 unless ${ofRole(role)}`,
  ];
}

/** What HAProxy itself answers: what a service answers passes unchanged. */
export const errorLines = ({ page }: Context): string[] =>
  page === undefined
    ? []
    : [500, 502, 503, 504].map(
        (status) =>
          `http-error status ${status} content-type "text/html; charset=utf-8" file ${page} hdr Cache-Control no-store`,
      );

/** Conditions of certificates that are no longer valid. */
export const barred = ({ revokedList }: Context): string[] => [
  `{ ssl_c_serial,hex -f ${revokedList} }`,
  // `CLUSTER authority WORD`, which is shorter than a serial: so one list, changed at runtime, holds it all.
  `{ ssl_c_i_dn(CN),word(3,\\ ) -f ${revokedList} } !{ ssl_c_der,sha2(256),hex,regsub(^,+) -f ${revokedList} }`,
];

export const ofRole = (role: string): string => `{ ssl_c_s_dn(OU) -m str ${role} }`;

export const FEEDS = `http-request set-timeout server ${FEED_TIMEOUT} if { path_end /_changes }`;

/** Peers check several times a second; while this node is down, each answer would be a line in the journal. */
export const QUIET_CHECKS = 'http-request set-log-level silent if { path /_up }';

/** 16 kB are some hundred lines; nobody reads but who waits. */
export const FAILURES_RING: Section = {
  head: `ring ${RING}`,
  lines: ['format raw', 'maxlen 400', 'size 16384'],
};

const STATISTICS_USERS = 'bornemisza_statistics';

/** In plain text: HAProxy would compute a slow hash for each request. The file is as secret as the keys beside it. */
export function statisticsUsers({ statisticsPassword }: HaproxyDesired): Section[] {
  if (typeof statisticsPassword !== 'string') return [];
  return [
    {
      head: `userlist ${STATISTICS_USERS}`,
      lines: [`user metrics insecure-password ${password(statisticsPassword)}`],
    },
  ];
}

function statisticsRight({ statisticsPassword }: HaproxyDesired): string[] {
  if (statisticsPassword === undefined) return [];
  if (statisticsPassword === null) return ['http-request deny deny_status 403'];
  return [`http-request auth realm statistics unless { http_auth(${STATISTICS_USERS}) }`];
}

export function statsSection(desired: HaproxyDesired, refused: ReadonlySet<string>): Section {
  return {
    head: 'frontend stats',
    lines: [
      `bind ${ipv4('private address', desired.privateAddress)}:${port('port', desired.statsPort)}`,
      ...statisticsRight(desired),
      // Before the page of the statistics, which takes every path.
      ...[EXPORTER].filter((line) => !refused.has(line)),
      'stats enable',
      'stats uri /',
      'stats refresh 5s',
      'stats hide-version',
    ],
  };
}
