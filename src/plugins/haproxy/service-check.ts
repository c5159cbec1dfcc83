import { CHECK_HOST, type EdgeService, type ServiceHealth, WELL_STATUSES } from './desired.ts';
import { count, dnsName, headerValue, method, quoted, token, urlPath } from './values.ts';

/** HAProxy's check of a service, in the form in which the daemon checks it too. */

/** A server that fails is out after 1.3 s: one failed check, then one more at the fast interval. */
export const WATCHED_CHECK = 'check inter 1s fastinter 300ms downinter 1s fall 2 rise 2';
/**
 * Of a service at another node: `inter` also bounds the TLS handshake, and within 1 s a busy edge misses all of them.
 * Records, errors and the second check take a server out sooner.
 */
export const PEER_CHECK = WATCHED_CHECK.replace('inter 1s fast', 'inter 2s fast');
/**
 * Of a service on this node. Each failed check brings the daemon's own forward (failures.ts), so the interval decides
 * how soon an error is found; a service that is down returns by the daemon's interval.
 */
const DEFAULTS = { intervalMs: 200, fastIntervalMs: 200, downIntervalMs: 1000, fall: 2, rise: 2 } as const;
/** A minute is the configuration's limit too. */
const MOST_MS = 60_000;

type Checked = Pick<EdgeService, 'healthHost' | 'healthStatus' | 'health'>;

/** The lines of a backend that say what is sent and what answer is healthy. */
export function checkOf(path: string, of: Checked = {}): string[] {
  const { healthHost: host = CHECK_HOST, healthStatus = [], health = {} } = of;
  const { timeoutMs } = health.timing ?? {};
  // From the connection on; the connection itself has at most `inter`.
  const timeout =
    timeoutMs === undefined ? [] : [`timeout check ${count('health timeout', timeoutMs, MOST_MS)}ms`];
  if (health.tcp === true) return timeout;
  const statuses = healthStatus.map((each) => {
    if (!Number.isInteger(each) || each < 100 || each > 599) throw new Error(`not a status: ${each}`);
    return each;
  });
  const { least, most } = WELL_STATUSES;
  const headers = Object.entries(health.headers ?? {}).map(
    ([name, value]) => ` hdr ${token('header', name)} ${headerValue(`header ${name}`, value)}`,
  );
  return [
    'option httpchk',
    ...timeout,
    `http-check send meth ${method(health.method ?? 'GET')} uri ${urlPath('health path', path)} ver HTTP/1.1 ` +
      `hdr Host ${dnsName('health host', host)}${headers.join('')}`,
    `http-check expect status ${statuses.length > 0 ? statuses.join(',') : `${least}-${most}`}`,
    // The second rule reads the answer of the first; both must hold.
    ...(health.body === undefined ? [] : [`http-check expect string ${quoted('health body', health.body)}`]),
  ];
}

/** When it is sent, and how many results decide. */
export function checkTimes({ timing = {} }: ServiceHealth = {}): string {
  const { intervalMs, fastIntervalMs, rise, fall } = timing;
  const least = Math.max(DEFAULTS.intervalMs, fastIntervalMs ?? 0);
  const inter = count('health interval', intervalMs ?? least, MOST_MS);
  const fast = Math.min(inter, fastIntervalMs ?? DEFAULTS.fastIntervalMs);
  return (
    `check inter ${inter}ms fastinter ${count('fast health interval', fast, MOST_MS)}ms ` +
    `downinter ${intervalMs ?? DEFAULTS.downIntervalMs}ms ` +
    `fall ${count('fall', fall ?? DEFAULTS.fall, 100)} rise ${count('rise', rise ?? DEFAULTS.rise, 100)}`
  );
}
