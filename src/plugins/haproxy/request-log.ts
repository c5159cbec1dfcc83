/** The log of the edge: failed requests always, all requests while the operator wants it. */
import type { AppHaproxy } from './desired.ts';
import { LOCAL, REQUEST_LOG, type WantedServer } from './rendered.ts';
import type { Context, Section } from './sections.ts';

/** Lines a second at one edge: a third of what journald takes from a unit before it drops lines, errors too. */
const MOST_A_SECOND = 100;

/**
 * One JSON object. No query: it often has secrets. Texts are cut, so that no line is longer than `len` and thus broken
 * JSON, however much a text grows in JSON's form.
 */
const text = (variable: string, bytes: number): string =>
  `\\"%[var(txn.${variable}),bytes(0,${bytes}),json(utf8s)]\\"`;
const FIELDS: readonly (readonly [name: string, value: string])[] = [
  // Counts the requests while all are logged: a gap is what was left out. HAProxy has `-` for no number.
  ['n', '\\"%[sc1_get_gpc1]\\"'],
  ['time', '\\"%[date,utime(%Y-%m-%dT%H:%M:%SZ)]\\"'],
  ['client', '\\"%ci\\"'],
  ['method', '\\"%HM\\"'],
  ['host', text('host', 255)],
  ['path', text('path', 500)],
  ['status', '%ST'],
  ['bytes', '%B'],
  ['ms', '%Ta'],
  ['backend', '\\"%b\\"'],
  ['server', '\\"%s\\"'],
  // Who ended the request, and when (HAProxy's manual, "session state at disconnection").
  ['end', '\\"%ts\\"'],
  ['agent', text('agent', 200)],
];
const FORMAT = FIELDS.map(([name, value]) => `\\"${name}\\":${value}`).join(',');

/** At the head of the edge. Successes have level info, which this target does not take. */
export const REQUEST_LOG_TARGET: readonly string[] = [
  'no log',
  'log stdout len 8192 format short daemon notice',
  'no option dontlog-normal',
  `log-format "{${FORMAT}}"`,
];

/** After the answers to checks. */
export const REQUEST_LOG_RULES: readonly string[] = [
  'http-request set-var(txn.host) req.hdr(host)',
  'http-request set-var(txn.path) path',
  'http-request set-var(txn.agent) req.hdr(user-agent)',
  // One server is always there, as HAProxy calls an empty backend an alert.
  `http-request track-sc1 int(1) table ${REQUEST_LOG.backend} if { nbsrv(${REQUEST_LOG.backend}) gt 1 }`,
  'http-request sc-inc-gpc1(1)',
  `http-request set-log-level notice if { sc1_gpc0_rate lt ${MOST_A_SECOND} }`,
  `http-request sc-inc-gpc0(1) if { sc1_gpc0_rate lt ${MOST_A_SECOND} }`,
];

/** A server as a switch: it changes at run time, conditions can ask for it, and a reload keeps it. */
export function requestLogSection({ requestsLogged = false }: AppHaproxy, context: Context): Section {
  const server: WantedServer = {
    ...REQUEST_LOG,
    address: '127.0.0.1',
    port: 9,
    options: 'no-check',
    duty: requestsLogged ? 'ready' : 'maint',
    why: requestsLogged ? 'each request is logged' : 'only failed requests are logged',
    subjects: [],
    peer: true,
  };
  const always: WantedServer = { ...server, name: LOCAL, duty: 'ready', why: 'always there', peer: false };
  context.servers.push(always, server);
  return {
    head: `backend ${REQUEST_LOG.backend}`,
    lines: ['no log', 'stick-table type integer size 10 expire 1d store gpc0,gpc0_rate(1s),gpc1'],
    servers: [always, server],
  };
}
