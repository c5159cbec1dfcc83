import { dirname } from 'node:path';
import type { AppHaproxy, EdgeService, LimitSharing } from './desired.ts';
import { IDLE_CLOSE } from './optional.ts';
import { SHARING } from './rendered.ts';
import { barred, type Context, ofRole, type Section } from './sections.ts';
import { dnsName, filePath, inSeconds, ipv4, kibibytes, perMinute, port, token, urlPath } from './values.ts';

/** How many requests that change something a client network sends in a minute, counted by all edges together. */

/** Requests that change nothing are never counted. */
const UNSAFE = '!{ method GET HEAD OPTIONS }';
/** More networks than that in two minutes are a flood: HAProxy forgets the oldest. 120 bytes each. */
const MOST_NETWORKS = '100k';
/** An IPv4 address, or the /64 that a provider gives to one customer. */
const NETWORK = 'src,ipmask(32,64)';
/** A rate looks back one period, and a further one in part (HAProxy's freq_ctr). */
const EXPIRE = '2m';

/**
 * Dot segments and backslashes: services resolve them differently, so the counted path could differ from the served
 * one. No browser sends them.
 */
const ODD_PATH = '[\\\\\\\\]|/([.]|%2[eE]){1,2}(/|$)';

/** As the app tier's own (RFC 9457). Between single quotes in the file, so it holds none. */
const TOO_MANY = JSON.stringify({
  type: '/problems/too-many-requests',
  status: 429,
  title: 'Too many tries. Wait a little.',
});

const tableOf = (service: string): string => `limit_${token('service name', service)}`;

const TOO_LARGE = JSON.stringify({
  type: '/problems/content-too-large',
  status: 413,
  title: 'This request is too large.',
});
const LENGTH_REQUIRED = JSON.stringify({
  type: '/problems/length-required',
  status: 411,
  title: 'This request does not declare its length.',
});

/** In parts in HTTP/1.1; in later versions, which say it only by the end of the body, where a method has one. */
const UNDECLARED = [
  '{ req.hdr(transfer-encoding) -m found }',
  '{ fc_http_major ge 2 } !{ req.hdr(content-length) -m found } !{ method GET HEAD OPTIONS DELETE CONNECT }',
];

/** HAProxy sees a body in parts: only what a request declares can be judged before the service gets it. */
export function boundLines({ timeoutSeconds, maxBodyKb }: EdgeService): string[] {
  const refuse = (status: number, problem: string, condition: string): string =>
    `http-request return status ${status} content-type application/problem+json string '${problem}' if ${condition}`;
  return [
    ...(maxBodyKb === undefined
      ? []
      : [
          refuse(411, LENGTH_REQUIRED, UNDECLARED.join(' or ')),
          refuse(413, TOO_LARGE, `{ req.hdr_val(content-length) gt ${kibibytes(maxBodyKb)} }`),
        ]),
    ...serverTimeout(timeoutSeconds),
  ];
}

export function serverTimeout(seconds: number | undefined): string[] {
  return seconds === undefined ? [] : [`timeout server ${inSeconds(seconds)}s`];
}

/** The first lines of a service's backend: only served requests are counted, not refused ones. */
export function limitLines({ name, limit }: EdgeService): string[] {
  if (limit === undefined) return [];
  const paths = limit.paths.map((path) => urlPath('limit path', path).replace(/\/+$/, ''));
  const below = paths.map((path) => `${path}/`).join(' ');
  // Decoded, as the service decodes it.
  const counted = [`{ path,url_dec -m str ${paths.join(' ')} }`, `{ path,url_dec -m beg ${below} }`];
  const first = paths.includes('') ? UNSAFE : counted.map((each) => `${UNSAFE} ${each}`).join(' or ');
  return [
    `http-request return status 400 if ${UNSAFE} { path_reg ${ODD_PATH} }`,
    `http-request track-sc0 ${NETWORK} table ${tableOf(name)} if ${first}`,
    'http-request return status 429 content-type application/problem+json hdr Retry-After 60 string ' +
      `'${TOO_MANY}' if { sc_gpc0_rate(0) ge ${perMinute('limit per minute', limit.perMinute)} }`,
    'http-request sc-inc-gpc0(0)',
  ];
}

/** The tables, and how the edges share them. Empty where no service has a limit. */
export function limitSections(
  { services, privateAddress, sharing }: AppHaproxy,
  context: Context,
): Section[] {
  const shared = sharing === undefined ? '' : ' peers edges';
  const tables = services
    .filter(({ limit }) => limit !== undefined)
    .map(({ name }): Section => {
      const table = `stick-table type ipv6 size ${MOST_NETWORKS} expire ${EXPIRE} store gpc0_rate(1m)${shared}`;
      return { head: `backend ${tableOf(name)}`, lines: [table] };
    });
  if (tables.length === 0 || sharing === undefined) return tables;
  return [...tables, edges(sharing, context), ...sharingDoor(privateAddress, sharing, context)];
}

/** Only for HAProxy's user: whoever reaches it can write counts. */
const socketOf = ({ layout }: Context): string =>
  `unix@${filePath('socket', `${dirname(layout.statsSocket)}/edges.sock`)}`;

/** A table is copied, not added up: at two edges at once, a client gets up to twice as much. */
function edges({ host, edges: others, port: on, verifySuffix }: LimitSharing, context: Context): Section {
  const tls = `ssl verify required ca-file ${context.ca} crt ${context.node}`;
  return {
    head: 'peers edges',
    lines: [
      `bind ${socketOf(context)} mode 600`,
      // This process, and the one that a reload puts in its place.
      `server ${token('host', host)}`,
      ...[...others]
        .sort((a, b) => (a.name < b.name ? -1 : 1))
        .map(
          ({ name, address }) =>
            `server ${token('server name', name)} ${ipv4(`address of ${name}`, address)}:${port('port', on)} ` +
            `${tls} verifyhost ${dnsName('certificate name', `${name}.${verifySuffix}`)}`,
        ),
    ],
  };
}

/** Mutual TLS as at the other doors: HAProxy's peers alone would take any certificate of the cluster. */
function sharingDoor(address: string, { port: on }: LimitSharing, context: Context): Section[] {
  const refused = [...barred(context), `!${ofRole('app')}`];
  return [
    {
      head: `frontend ${SHARING.frontend}`,
      lines: [
        'mode tcp',
        'option tcplog',
        // Only for HTTP: otherwise HAProxy warns at each start.
        ...(context.refused.has(IDLE_CLOSE) ? [] : [`no ${IDLE_CLOSE}`]),
        `bind ${ipv4('private address', address)}:${port('port', on)} ssl crt ${context.node} ca-file ` +
          `${context.ca} verify required`,
        ...refused.map((each) => `tcp-request content reject if ${each}`),
        `default_backend ${SHARING.backend}`,
      ],
    },
    {
      head: `backend ${SHARING.backend}`,
      lines: ['mode tcp', `server _local ${socketOf(context)}`],
    },
  ];
}
