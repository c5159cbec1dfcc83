import * as z from 'zod';

/** How the health of a service is checked: keys of services.d, beside `health_path`, `health_host`, `health_status`. */

const MOST_HEADERS = 10;
/** HAProxy reads lines of 2048 bytes. */
const MOST_HEADERS_LENGTH = 1000;
const HEADER_NAME = /^[A-Za-z][A-Za-z0-9-]{0,62}$/;
/** HAProxy writes it in single quotes and reads `%` in it. */
const HEADER_VALUE = /^[\x21-\x7e]([\x20-\x7e]{0,254}[\x21-\x7e])?$/;
const BODY = /^[\x20-\x7e]{1,200}$/;
/** What only the programs that send the request know, and `Host`, which is `health_host`. */
const NOT_OURS =
  /^(host|connection|content-length|transfer-encoding|expect|upgrade|te|trailer|keep-alive|proxy-.*)$/i;

export const healthKeys = {
  check: z.enum(['http', 'tcp']).default('http'),
  /** Safe ones, since it is sent again and again. */
  health_method: z.enum(['GET', 'HEAD', 'OPTIONS']).default('GET'),
  health_headers: z
    .record(z.string(), z.string())
    .default({})
    .superRefine((headers, context) => {
      for (const message of headerProblems(headers)) context.addIssue({ code: 'custom', message });
    }),
  /** A text that the answer contains. */
  health_body: z
    .string()
    .regex(BODY, 'must be 1 to 200 printable ASCII characters')
    .refine((text) => !/['\\]/.test(text), 'must not contain a single quote or a backslash')
    .optional(),
  /** The systemd unit that runs it. */
  unit: z
    .string()
    .regex(
      /^[A-Za-z0-9:_.\\@-]{1,240}\.service$/,
      'must be the name of a systemd service, e.g. "shop.service"',
    )
    .optional(),
  health_interval_ms: z.int().min(100).max(60_000).optional(),
  health_fast_interval_ms: z.int().min(50).max(60_000).optional(),
  health_timeout_ms: z.int().min(50).max(60_000).optional(),
  health_rise: z.int().min(1).max(100).optional(),
  health_fall: z.int().min(1).max(100).optional(),
};

type HealthKeys = z.output<z.ZodObject<typeof healthKeys>> & {
  readonly health_path: string;
  readonly health_host: string;
  readonly health_status: readonly number[];
};

function headerProblems(headers: Readonly<Record<string, string>>): string[] {
  const names = Object.keys(headers);
  const problems = names.flatMap((name) => {
    if (!HEADER_NAME.test(name)) return [`"${name}" is not the name of a header`];
    if (NOT_OURS.test(name))
      return [`${name} cannot be set here${/^host$/i.test(name) ? ': use health_host' : ''}`];
    const value = headers[name] ?? '';
    return HEADER_VALUE.test(value) && !/['\\%]/.test(value)
      ? []
      : [`the value of ${name} must be 1 to 256 printable ASCII characters without ' \\ %`];
  });
  const length = Object.entries(headers).flat().join('').length;
  if (names.length > MOST_HEADERS || length > MOST_HEADERS_LENGTH)
    problems.push(`must be ${MOST_HEADERS} headers of ${MOST_HEADERS_LENGTH} characters in all at most`);
  if (new Set(names.map((name) => name.toLowerCase())).size < names.length)
    problems.push('names a header twice');
  return problems;
}

/** Problems between keys that are valid alone. */
export function healthProblems(service: HealthKeys): (readonly [key: string, problem: string])[] {
  const { check, health_method, health_body, health_interval_ms, health_fast_interval_ms } = service;
  const problems: (readonly [string, string])[] = [];
  if (check === 'tcp')
    for (const key of ofHttpAlone(service))
      problems.push([key, 'is for check = "http": a TCP check only opens a connection']);
  if (check === 'http' && health_body !== undefined && health_method !== 'GET')
    problems.push(['health_body', 'needs health_method = "GET": other answers may have no body']);
  const [slow, fast] = [health_interval_ms, health_fast_interval_ms];
  if (slow !== undefined && fast !== undefined && fast > slow)
    problems.push(['health_fast_interval_ms', 'must not be longer than health_interval_ms']);
  return problems;
}

function ofHttpAlone(service: HealthKeys): string[] {
  const set: Readonly<Record<string, boolean>> = {
    health_path: service.health_path !== '/',
    health_host: service.health_host !== 'localhost',
    health_status: service.health_status.length > 0,
    health_method: service.health_method !== 'GET',
    health_headers: Object.keys(service.health_headers).length > 0,
    health_body: service.health_body !== undefined,
  };
  return Object.keys(set).filter((key) => set[key]);
}

/** The one definition that both checkers use, the daemon and HAProxy. Undefined times: each has its own default. */
export function healthOf(service: HealthKeys) {
  return {
    tcp: service.check === 'tcp',
    method: service.health_method,
    headers: service.health_headers,
    body: service.health_body,
    timing: {
      intervalMs: service.health_interval_ms,
      fastIntervalMs: service.health_fast_interval_ms,
      timeoutMs: service.health_timeout_ms,
      rise: service.health_rise,
      fall: service.health_fall,
    },
  };
}
