import { readFile } from 'node:fs/promises';
import { isIP, isIPv4, isIPv6 } from 'node:net';
import { basename, dirname } from 'node:path';
import { closest, distance } from 'fastest-levenshtein';
import { parse, TomlError } from 'smol-toml';
import * as z from 'zod';
import { CONFIG_FORMAT } from './format.ts';
import { OperatorError } from '../errors.ts';
import { USUAL_DIRECTORY } from '../../host/couchdb-directory.ts';
import { canonicalAddress, isRoutable } from '../../host/floating-address.ts';
import { isGlobalUnicast } from '../../host/public-address.ts';
import type { Role } from '../membership/types.ts';
import { healthKeys, healthProblems } from './service-health.ts';
import { type Entry, readDirectory, readPage, readPassword, SNIPPETS } from './directory.ts';

/** The paths on a host, in one place, so that lab, package and loopback demo can differ. */
export interface Paths {
  readonly config: string;
  readonly services: string;
  /** Of role app: the founder's own parts of HAProxy's configuration. */
  readonly snippets: string;
  readonly state: string;
  readonly run: string;
  readonly controlSocket: string;
  /** See rollout/turn.ts. */
  readonly upgradeRequest: string;
  readonly upgradeResult: string;
  /** Of role app, see process/heartbeat.ts. */
  readonly heartbeat: string;
  /** Of role app, see health/unit-watch.ts. */
  readonly unitWatch: { readonly watched: string; readonly stopped: string };
  readonly haproxyFiles: string;
  readonly haproxyRun: string;
  readonly birdFragments: string;
  readonly birdSocket: string;
  readonly couchdbFiles: string;
  /** The daemon's list for the firewall's helper, root's rules, and the helper's sign of life; see systemd/firewall. */
  readonly firewall: { readonly list: string; readonly base: string; readonly state: string };
  /** Of role app: the daemon's files for the app tier. */
  readonly accountsFiles: string;
  /** Of role app: the app tier's socket for `bornemisza accounts`. */
  readonly accountsSocket: string;
  readonly couchdbData: string;
}

/** The paths of one role instance. `root` is '' on a real host; the loopback demo puts everything under a directory. */
export function pathsFor(role: Role, root = ''): Paths {
  return {
    config: `${root}/etc/bornemisza/${role}.toml`,
    services: `${root}/etc/bornemisza/services.d`,
    snippets: `${root}/etc/bornemisza/haproxy.d`,
    state: `${root}/var/lib/bornemisza/${role}`,
    run: `${root}/run/bornemisza/${role}`,
    controlSocket: `${root}/run/bornemisza/${role}/control.sock`,
    upgradeRequest: `${root}/run/bornemisza/${role}/upgrade`,
    upgradeResult: `${root}/run/bornemisza/upgraded`,
    heartbeat: `${root}/run/bornemisza/deadman/heartbeat`,
    unitWatch: {
      watched: `${root}/run/bornemisza/unit-watch/watched`,
      stopped: `${root}/run/bornemisza-unit-watch/stopped`,
    },
    haproxyFiles: `${root}/var/lib/bornemisza/haproxy/${role}`,
    haproxyRun: `${root}/run/bornemisza-haproxy/${role}`,
    birdFragments: `${root}/etc/bird/bornemisza.d`,
    birdSocket: `${root}/run/bird/bird.ctl`,
    couchdbFiles: `${root}/var/lib/bornemisza/couchdb`,
    firewall: {
      list: `${root}/run/bornemisza/${role}/firewall`,
      base: `${root}/etc/bornemisza/firewall.base`,
      state: `${root}/run/bornemisza-firewall/state`,
    },
    accountsFiles: `${root}/var/lib/bornemisza/accounts`,
    accountsSocket: `${root}/run/bornemisza-app/operator.sock`,
    couchdbData: `${root}/var/lib/couchdb`,
  };
}

/** Ports of the daemon. They differ by role, so that both roles fit on one host. */
export const PORTS = {
  app: { libp2p: 4101, admission: 4102, metrics: 4105 },
  db: { libp2p: 4103, admission: 4104, metrics: 4106 },
} as const;

const label = z
  .string()
  .regex(
    /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/,
    'must be letters a-z, digits and hyphens, 63 at most (RFC 1123)',
  );
const address = z.string().refine(isIPv4, 'must be an IPv4 address, e.g. "10.0.0.11"');
const floatingAddress = z
  .string()
  .refine(
    isRoutable,
    'must be an IPv4 or IPv6 address that a provider can route, e.g. "203.0.113.10" or "2001:db8::10"',
  )
  .transform(canonicalAddress);
const port = z.int().min(1).max(65535);
/** Two years: what lists of sites with HTTPS alone ask for. */
const MOST_HSTS_S = 63_072_000;
const isSeed = (text: string): boolean => {
  const [host = '', at, ...rest] = text.split(':');
  return rest.length === 0 && isIPv4(host) && (at === undefined || port.safeParse(Number(at)).success);
};
const network = z.string().refine((text) => {
  const [base, bits, ...rest] = text.split('/');
  return rest.length === 0 && isIPv4(base ?? '') && /^\d+$/.test(bits ?? '') && Number(bits) <= 32;
}, 'must be an IPv4 network, e.g. "10.0.0.0/24"');
const eitherNetwork = z.string().refine((text) => {
  const [base, bits, ...rest] = text.split('/');
  if (network.safeParse(text).success) return true;
  // A zone (`fe80::1%eth0`) is an address for isIPv6.
  return (
    rest.length === 0 &&
    /^[^%]*$/.test(base ?? '') &&
    isIPv6(base ?? '') &&
    /^\d{1,3}$/.test(bits ?? '') &&
    Number(bits) <= 128
  );
}, 'must be an IPv4 or IPv6 network, e.g. "192.0.2.0/24" or "2001:db8::/32"');
/** A further port, e.g. "tcp/9000" or "udp/51820 from 192.0.2.0/24". */
const allowed = z.string().refine((text) => {
  const [what = '', from, ...rest] = text.split(' from ');
  const found = /^(tcp|udp)\/(\d{1,5})$/.exec(what);
  return (
    rest.length === 0 &&
    found !== null &&
    port.safeParse(Number(found[2])).success &&
    (from === undefined || eitherNetwork.safeParse(from).success)
  );
}, 'must be like "tcp/9000" or "tcp/9000 from 192.0.2.0/24"');
/** A name of a service, such as `_bornemisza._tcp.shop.internal` (RFC 2782). */
const dnsName = z
  .string()
  .max(253)
  .regex(/^[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9])?)+$/i, 'must be a DNS name');
/** Shorter than DNS allows by `_acme-challenge.`, as a CA may check the name by a TXT record there. */
const siteName = z
  .string()
  .max(237)
  .regex(
    /^(\*\.(?=.*\.))?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+(?!\d+$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/,
    'must be a DNS name in lower case with a dot in it, e.g. "shop.example" or "*.shop.example"',
  );
/** Limit of names. The state of order limits is kept for each set of names, so their total length is bounded too. */
const MOST_NAMES = 20;
const MOST_NAMES_LENGTH = 1000;
/** Relative to the zone; `@` is the zone itself. */
const recordName = z
  .string()
  .max(200)
  .regex(
    /^(@|\*|(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*)$/,
    'must be "@", or a name in lower case without the zone, e.g. "www"',
  );
/** IFNAMSIZ in linux/if.h is 16 with the closing zero. */
const device = z.string().regex(/^[A-Za-z0-9_.-]{1,15}$/, 'must be the name of a network device');
const absolutePath = z
  .string()
  .regex(/^\/[^\0\n\r"']*$/, 'must be an absolute path without quotes or newlines');

/** CouchDB's list of ini files is split at blanks, and Erlang's boot script expands some other characters. */
const releaseDirectory = z
  .string()
  .max(200)
  .regex(
    /^(\/[A-Za-z0-9_][A-Za-z0-9._-]*)+$/,
    'must be an absolute path of letters, digits and . _ -, without ".." and without a slash at its end',
  );

/**
 * One address in the form of an envelope, without a display name (RFC 5321 in its plain form). It can start neither an
 * option of a program nor a header.
 */
const mailAddress = z
  .string()
  .max(254)
  .regex(/^[A-Za-z0-9_][\w.+-]*@[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$/, 'must be a plain mail address');
/** A URL without a login: the login of a mail server has its own keys, which are never shown. */
const urlOf = (protocols: readonly string[], example: string) =>
  z.string().refine((text) => {
    const url = URL.parse(text);
    return (
      url !== null &&
      protocols.includes(url.protocol) &&
      url.hostname !== '' &&
      url.username + url.password === ''
    );
  }, `must be a URL like "${example}", without a login in it`);

/** Names of built-in checks in `status`; a service with such a name would never be checked. */
const OWN_CHECKS: ReadonlySet<string> = new Set(['haproxy', 'database']);

const serviceName = z
  .string()
  .regex(
    /^[a-z][a-z0-9-]{0,30}$/,
    'must start with a letter and be letters a-z, digits and hyphens, 31 at most',
  )
  .refine((name) => !OWN_CHECKS.has(name), 'is the name of a check of our own: choose another');
const pathText = z
  .string()
  .regex(/^\/[A-Za-z0-9._~/-]*$/, "must start with '/' and hold only letters, digits and . _ ~ / -");

const DEFAULT_LIMIT = 10;
/** As in the defaults of haproxy.cfg. */
const DEFAULT_TIMEOUT_S = 120;

const serviceSchema = z
  .strictObject({
    name: serviceName,
    port,
    path_prefix: pathText.default('/'),
    health_path: pathText.default('/'),
    /** The `Host` of the checks: Django and Rails answer only to the names in their settings. */
    health_host: z
      .string()
      .regex(
        /^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/,
        'must be a host name, e.g. "shop.example.com"',
      )
      .default('localhost'),
    /** Statuses that are healthy; empty: 200 to 299. */
    health_status: z.array(z.int().min(100).max(599)).max(10).default([]),
    ...healthKeys,
    /** Whether this node takes itself out of the floating IP when the service is down. */
    required: z.boolean().default(false),
    /** False on nodes that only route to the service of others. */
    local: z.boolean().default(true),
    /** Paths, and all below them, where the edge limits the requests of a client network. */
    limit_paths: z.array(pathText).max(20).default([]),
    limit_per_minute: z.int().min(1).max(100_000).default(DEFAULT_LIMIT),
    /** How long the edge waits for an answer, and for its next part. Old processes end after 15 minutes. */
    timeout_s: z.int().min(1).max(900).default(DEFAULT_TIMEOUT_S),
    /** 0: no limit. */
    max_body_kb: z.int().min(0).max(4_194_304).default(0),
  })
  .superRefine(({ path_prefix, limit_paths, limit_per_minute }, context) => {
    const isOutside = (path: string): boolean => !isBelow(path, path_prefix);
    const problem = (path: string, message: string): void =>
      context.addIssue({ code: 'custom', path: [path], message });
    for (const path of limit_paths.filter(isOutside))
      problem(
        'limit_paths',
        `"${path}" is not below path_prefix "${path_prefix}": the edge never sends it here`,
      );
    if (limit_per_minute !== DEFAULT_LIMIT && limit_paths.length === 0)
      problem('limit_per_minute', 'needs limit_paths: the paths that are counted');
  })
  .superRefine((service, context) => {
    for (const [path, message] of healthProblems(service))
      context.addIssue({ code: 'custom', path: [path], message });
  });

function isBelow(path: string, prefix: string): boolean {
  const [one, other] = [path, prefix].map((each) => each.replace(/\/+$/, ''));
  return one === other || `${one}`.startsWith(`${other}/`);
}

/** The limit of a service, in the plugin's terms. */
export function limitOf({ limit_paths: paths, limit_per_minute: perMinute }: Service): {
  limit?: { paths: readonly string[]; perMinute: number };
} {
  return paths.length === 0 ? {} : { limit: { paths, perMinute } };
}

/** What the edge bounds of a request to a service, in the plugin's terms. */
export function boundsOf({ timeout_s: timeoutSeconds, max_body_kb: maxBodyKb }: Service): {
  timeoutSeconds?: number;
  maxBodyKb?: number;
} {
  return {
    ...(timeoutSeconds !== DEFAULT_TIMEOUT_S && { timeoutSeconds }),
    ...(maxBodyKb !== 0 && { maxBodyKb }),
  };
}

/** Of modes `bgp` and `ranked`. */
const FLOATING_DEVICE = 'bm-float';
/** Of mode `api`; `command` is the operator's own program. */
const FLOATING_PROVIDERS = ['digitalocean', 'hetzner', 'upcloud', 'command'] as const;

const schema = z.strictObject({
  /** See format.ts. A file without this key is of format 0, which reads the same. */
  format: z
    .int()
    .min(0)
    .max(
      CONFIG_FORMAT,
      'is of a later version of the program: install that, or run `bornemisza config migrate` to restore the ' +
        'previous file',
    )
    .default(0),
  node: z.strictObject({ cluster: label, host: label }),
  network: z.strictObject({
    private_address: address,
    private_network: network,
    private_device: device,
    public_device: device.optional(),
    public_addresses: z
      .array(
        z.string().refine(isGlobalUnicast, 'must be an address that the internet reaches, in lower case'),
      )
      .max(2)
      .default([])
      .refine(
        (all) => new Set(all.map(isIP)).size === all.length,
        'must be at most one IPv4 and one IPv6 address',
      ),
    libp2p_port: port.optional(),
    admission_port: port.optional(),
  }),
  membership: z
    .strictObject({
      preset: z.enum(['lan', 'wan', 'test']).default('lan'),
      seeds: z
        .array(z.string().refine(isSeed, 'must be ADDRESS or ADDRESS:PORT, e.g. "10.0.0.11"'))
        .max(32)
        .default([]),
      srv: z.union([dnsName.transform((name) => [name]), z.array(dnsName).max(8)]).default([]),
    })
    .prefault({}),
  health: z
    .strictObject({
      interval_ms: z.int().min(100).max(60_000).default(1000),
      fast_interval_ms: z.int().min(50).max(60_000).default(100),
      timeout_ms: z.int().min(50).max(60_000).default(2000),
      rise: z.int().min(1).max(100).default(2),
      fall: z.int().min(1).max(100).default(2),
      damping_ms: z.int().min(0).max(600_000).default(5000),
    })
    .prefault({}),
  edge: z
    .strictObject({
      certificate: absolutePath.optional(),
      error_page: absolutePath.optional(),
      https_port: port.default(443),
      http_port: port.default(80),
      door_port: port.default(8443),
      stats_port: port.default(8404),
      sharing_port: port.default(8444),
      database_port: port.default(5984),
      hsts_max_age_s: z.int().min(0).max(MOST_HSTS_S).optional(),
    })
    .prefault({}),
  floating: z
    .strictObject({
      mode: z.enum(['off', 'bgp', 'ranked', 'layer2', 'api']).default('off'),
      addresses: z.array(floatingAddress).max(16).default([]),
      device: device.default(FLOATING_DEVICE),
      /** RFC 4271, 4.2: three seconds at least. BIRD's own default is the most. */
      hold_time_s: z.int().min(3).max(240).default(9),
      bfd: z.boolean().default(false),
      provider: z.enum(FLOATING_PROVIDERS).optional(),
      token_file: absolutePath.optional(),
      command: z.array(z.string().max(1000)).max(32).default([]),
      server_id: z
        .string()
        .regex(/^[\w:.-]{1,36}$/, 'must be what the provider calls this server, 36 characters at most')
        .optional(),
    })
    .prefault({})
    .superRefine((value, context) => {
      for (const [path, message] of floatingProblems(value))
        context.addIssue({ code: 'custom', path: [path], message });
    })
    .refine((value) => value.mode === 'off' || value.addresses.length > 0, {
      message: 'addresses must name at least one floating IP unless mode is "off"',
      path: ['addresses'],
    })
    .refine((value) => value.mode !== 'layer2' || value.device === FLOATING_DEVICE, {
      message: 'is for BGP; with mode "layer2" the addresses go on network.public_device: leave it out',
      path: ['device'],
    }),
  couchdb: z
    .strictObject({
      directory: releaseDirectory.default(USUAL_DIRECTORY),
      http_port: port
        .default(15984)
        .refine((value) => value !== 5984, 'must not be 5984: that is the app role’s listener'),
      door_port: port.default(6984),
      peer_port: port.default(6985),
      stats_port: port.default(8405),
      distribution_port: port.default(9100),
      n: z.int().min(1).max(5).default(3),
      q: z.int().min(1).max(64).default(2),
    })
    .prefault({}),
  dns: z
    .strictObject({
      provider: z.enum(['off', 'cloudflare', 'rfc2136']).default('off'),
      zone: dnsName.optional(),
      names: z.array(recordName).max(16).default(['@', 'www']),
      ttl_s: z.int().min(30).max(86_400).default(60),
      zone_id: z
        .string()
        .regex(/^[0-9a-f]{32}$/, 'must be the 32 hexadecimal digits of the zone ID')
        .optional(),
      token_file: absolutePath.optional(),
      server: address.optional(),
      port: port.default(53),
      key_file: absolutePath.optional(),
    })
    .prefault({})
    .superRefine((value, context) => {
      for (const key of missingForDns(value))
        context.addIssue({
          code: 'custom',
          path: [key],
          message: `is needed with provider "${value.provider}"`,
        });
    }),
  certificates: z
    .strictObject({
      names: z.array(siteName).max(MOST_NAMES).default([]),
      challenge: z.enum(['http-01', 'dns-01']).default('http-01'),
      profile: z
        .string()
        .regex(/^[A-Za-z0-9_-]{1,64}$/, 'must be the name of a profile of the CA, e.g. "shortlived"')
        .optional(),
      directory: urlOf(['https:'], 'https://acme-v02.api.letsencrypt.org/directory').default(
        'https://acme-v02.api.letsencrypt.org/directory',
      ),
      ca_file: absolutePath.optional(),
      contact: z.array(mailAddress).max(4).default([]),
      terms: z.enum(['agreed']).optional(),
      eab_kid: z
        .string()
        .regex(/^[\x21-\x7e]{1,256}$/, 'must be the key identifier that the CA gave you, without blanks')
        .optional(),
      eab_hmac_key_file: absolutePath.optional(),
    })
    .prefault({})
    .refine(({ names }) => names.join(' ').length <= MOST_NAMES_LENGTH, {
      message: `must be ${MOST_NAMES_LENGTH} characters at most in all`,
      path: ['names'],
    })
    .refine(({ names, terms }) => names.length === 0 || terms !== undefined, {
      message: 'must be "agreed" if names are set: read the terms of the CA first',
      path: ['terms'],
    })
    .superRefine((value, context) => {
      for (const message of wildcardProblems(value))
        context.addIssue({ code: 'custom', path: ['names'], message });
    })
    .refine(({ eab_kid: kid, eab_hmac_key_file: file }) => (kid === undefined) === (file === undefined), {
      message: 'and eab_hmac_key_file are given together or not at all',
      path: ['eab_kid'],
    }),
  /** Read by `bornemisza firewall on` alone. */
  firewall: z
    .strictObject({
      ssh_from: z.array(eitherNetwork).max(32).default([]),
      allow: z.array(allowed).max(64).default([]),
    })
    .prefault({}),
  notify: z
    .strictObject({
      mail_to: z.array(mailAddress).max(10).default([]),
      mail_from: mailAddress.optional(),
      sendmail: absolutePath.optional(),
      smtp_url: urlOf(['smtp:', 'smtps:'], 'smtp://mail.example.com:587').optional(),
      smtp_tls: z.enum(['required', 'off']).default('required'),
      smtp_ca_file: absolutePath.optional(),
      smtp_user: z.string().min(1).max(254).optional(),
      smtp_password_file: absolutePath.optional(),
      webhook_url: urlOf(['https:', 'http:'], 'https://hooks.example.com/path').optional(),
      command: z.array(z.string().max(1000)).max(32).default([]),
      wait_ms: z.int().min(0).max(3_600_000).default(10_000),
      interval_ms: z.int().min(1000).max(86_400_000).default(300_000),
      timeout_ms: z.int().min(100).max(120_000).default(20_000),
    })
    .prefault({})
    .superRefine((value, context) => {
      for (const [path, message] of notifyProblems(value))
        context.addIssue({ code: 'custom', path: [path], message });
    }),
  metrics: z
    .strictObject({
      enabled: z.boolean().default(false),
      port: port.optional(),
      password_file: absolutePath.optional(),
    })
    .prefault({}),
  log: z.strictObject({ level: z.enum(['error', 'warn', 'info', 'debug']).default('info') }).prefault({}),
});

/** Problems between keys of `[floating]` that are valid alone. */
function floatingProblems(value: {
  readonly mode: string;
  readonly addresses: readonly string[];
  readonly provider?: string | undefined;
  readonly token_file?: string | undefined;
  readonly command: readonly string[];
  readonly server_id?: string | undefined;
}): (readonly [key: string, problem: string])[] {
  const { mode, addresses, provider, token_file, command, server_id } = value;
  const others = [provider, token_file, server_id, command[0]].some((each) => each !== undefined);
  if ((mode === 'layer2' || mode === 'api') && addresses.some(isIPv6))
    return [['addresses', `must be IPv4 with mode "${mode}": only BGP (mode "bgp" or "ranked") moves IPv6`]];
  if (mode !== 'api')
    return others ? [['mode', 'must be "api" where provider, token_file, command or server_id is set']] : [];
  if (provider === undefined)
    return [['provider', `is needed with mode "api": one of ${FLOATING_PROVIDERS.join(', ')}`]];
  const problems: (readonly [string, string])[] = [];
  const [program] = command;
  const needed: readonly (readonly [key: string, value: unknown])[] =
    provider === 'command'
      ? [
          ['command', program],
          ['server_id', server_id],
        ]
      : [['token_file', token_file]];
  for (const [key, given] of needed)
    if (given === undefined) problems.push([key, `is needed with provider "${provider}"`]);
  if (provider !== 'command' && program !== undefined)
    problems.push(['command', 'is for provider "command": leave it out']);
  if (program !== undefined && !program.startsWith('/'))
    problems.push(['command', 'must begin with the absolute path of a program; it is not given to a shell']);
  if (provider === 'digitalocean' && addresses.length > 1)
    problems.push(['addresses', 'must be one: a droplet has one reserved IP at most']);
  if (
    server_id !== undefined &&
    (provider === 'digitalocean' || provider === 'hetzner') &&
    !/^\d+$/.test(server_id)
  )
    problems.push(['server_id', `must be a number with provider "${provider}"`]);
  return problems;
}

/** Problems of `certificates.names` with `*`. */
function wildcardProblems(value: {
  readonly names: readonly string[];
  readonly challenge: 'http-01' | 'dns-01';
}): string[] {
  const { names, challenge } = value;
  const wild = names.filter((name) => name.startsWith('*.'));
  if (challenge === 'http-01' && wild.length > 0)
    return [`"${wild[0]}" needs challenge = "dns-01": a CA cannot check a wildcard at port 80`];
  return names
    .filter((name) => !name.startsWith('*.') && wild.includes(name.replace(/^[^.]+/, '*')))
    .map(
      (name) =>
        `"${name}" is part of "${name.replace(/^[^.]+/, '*')}": remove one, as CAs refuse both together`,
    );
}

/** Problems between `[certificates]` and `[dns]`. */
function dnsChallengeProblems({ certificates: { names, challenge }, dns }: Config): string[] {
  if (challenge === 'http-01' || names.length === 0) return [];
  if (dns.zone === undefined)
    return [
      'certificates.challenge = "dns-01" needs [dns]: its zone on every app node, its provider and key on two of them',
    ];
  const zone = dns.zone.toLowerCase();
  return names
    .filter((name) => !`.${name}`.endsWith(`.${zone}`))
    .map(
      (name) =>
        `certificates.names: "${name}" is not in the zone ${zone} of [dns], so "dns-01" cannot prove it`,
    );
}

type DnsKey = 'zone' | 'zone_id' | 'token_file' | 'server' | 'key_file';
const NEEDED_FOR_DNS: Readonly<Record<'off' | 'cloudflare' | 'rfc2136', readonly DnsKey[]>> = {
  off: [],
  cloudflare: ['zone', 'zone_id', 'token_file'],
  rfc2136: ['zone', 'server', 'key_file'],
};

function missingForDns(
  value: { readonly provider: keyof typeof NEEDED_FOR_DNS } & Partial<Readonly<Record<DnsKey, unknown>>>,
): DnsKey[] {
  return NEEDED_FOR_DNS[value.provider].filter((key) => value[key] === undefined);
}

/** Problems between keys of `[notify]` that are valid alone. */
function notifyProblems(value: {
  readonly mail_to: readonly string[];
  readonly mail_from?: string | undefined;
  readonly sendmail?: string | undefined;
  readonly smtp_url?: string | undefined;
  readonly smtp_tls: 'required' | 'off';
  readonly smtp_user?: string | undefined;
  readonly smtp_password_file?: string | undefined;
  readonly command: readonly string[];
}): (readonly [key: string, problem: string])[] {
  const { mail_to, mail_from, sendmail, smtp_url, smtp_user, smtp_password_file } = value;
  const problems: (readonly [string, string])[] = [];
  const mail = mail_to.length > 0;
  if (mail && mail_from === undefined) problems.push(['mail_from', 'is needed with mail_to']);
  if (mail && (sendmail === undefined) === (smtp_url === undefined))
    problems.push(['mail_to', 'needs either smtp_url or sendmail to send with']);
  if (!mail && (sendmail ?? smtp_url) !== undefined)
    problems.push(['mail_to', 'must name the recipients of the mail of smtp_url or sendmail']);
  if ((smtp_user === undefined) !== (smtp_password_file === undefined))
    problems.push(['smtp_user', 'and smtp_password_file are given together or not at all']);
  if (smtp_user !== undefined && value.smtp_tls === 'off')
    problems.push(['smtp_tls', 'must be "required" if a password is set']);
  if (value.smtp_tls === 'off' && smtp_url?.startsWith('smtps:') === true)
    problems.push(['smtp_tls', 'must be "required" with smtps://']);
  const [program] = value.command;
  if (program !== undefined && !program.startsWith('/'))
    problems.push(['command', 'must begin with the absolute path of a program; it is not given to a shell']);
  return problems;
}

export type Service = Readonly<z.output<typeof serviceSchema>>;
/** Code of a snippet that is left out, wherever that is found. */
const SNIPPET_REFUSED = 'haproxy-snippet-refused';
export interface PassedOver {
  readonly code: string;
  readonly message: string;
  readonly next: string;
}
export type Config = Readonly<z.output<typeof schema>> & {
  readonly role: Role;
  readonly libp2pPort: number;
  readonly admissionPort: number;
  readonly metricsPort: number;
  readonly services: readonly Service[];
  readonly snippets: Snippets;
  /** The HTML of `edge.error_page`; undefined: none, or it cannot be used. */
  readonly errorPage: string | undefined;
  /** Of `metrics.password_file`, for whoever reads statistics. `null`: it cannot be read, so nobody gets any. */
  readonly statisticsPassword: string | null | undefined;
  /** Files in services.d and haproxy.d that are ignored, with the next step. Nothing else is affected. */
  readonly passedOver: readonly PassedOver[];
};
/** The founder's own parts of HAProxy's configuration, as text. */
export interface Snippets {
  /** When they were read, in ms since the epoch: HAProxy tries a refused one again after each reading. */
  readonly readMs: number;
  /** In the order of their names. */
  readonly files: readonly { readonly file: string; readonly text: string }[];
}
/** What is read beside the configuration. */
interface Beside {
  readonly snippets?: Snippets;
  readonly errorPage?: string | undefined;
  readonly statisticsPassword?: string | null | undefined;
}
const NO_SNIPPETS: Snippets = { readMs: 0, files: [] };

/**
 * Turns the text of a role's TOML file into a frozen configuration. Unknown keys are refused and the nearest known
 * one is named.
 *
 * @throws OperatorError `config-invalid` with every problem in its message
 */
export function parseConfig(
  text: string,
  role: Role,
  file: string,
  services: readonly Service[] = [],
  passedOver: readonly PassedOver[] = [],
  beside: Beside = {},
): Config {
  return configOf(written(text, file), { role, file, services, passedOver, ...beside });
}

type Written = z.output<typeof schema>;

function written(text: string, file: string): Written {
  return checked(schema, tomlOf(text, file), file);
}

interface Around extends Beside {
  readonly role: Role;
  readonly file: string;
  readonly services: readonly Service[];
  readonly passedOver: readonly PassedOver[];
}

function configOf(value: Written, around: Around): Config {
  const { role, file, services, passedOver } = around;
  const { snippets = NO_SNIPPETS, errorPage, statisticsPassword } = around;
  const config = deepFreeze({
    ...value,
    role,
    libp2pPort: value.network.libp2p_port ?? PORTS[role].libp2p,
    admissionPort: value.network.admission_port ?? PORTS[role].admission,
    metricsPort: value.metrics.port ?? PORTS[role].metrics,
    services: [...services],
    snippets,
    errorPage,
    statisticsPassword,
    passedOver: [...passedOver],
  });
  const problems = [...portClashes([config]), ...publicDeviceProblems(config)];
  if (role !== 'app' && config.dns.provider !== 'off')
    problems.push('[dns] belongs into app.toml: app nodes manage the records');
  if (role !== 'app' && config.certificates.names.length > 0)
    problems.push('[certificates] belongs into app.toml: app nodes serve the certificate of the site');
  if (config.certificates.names.length > 0 && config.edge.certificate !== undefined)
    problems.push(
      'edge.certificate and certificates.names are both set: remove one, so that it is clear which is served',
    );
  problems.push(...dnsChallengeProblems(config));
  if (problems.length > 0) throw invalid(file, problems);
  return config;
}

/** Problems between `[floating]` and `[network]` if the public device carries the addresses. */
function publicDeviceProblems(config: Config): string[] {
  const { floating, network } = config;
  const { mode } = floating;
  if (mode !== 'layer2' && !(mode === 'api' && usesPublicDevice(config))) return [];
  const where = mode === 'api' ? `provider "${floating.provider}"` : 'mode "layer2"';
  if (network.public_device === undefined)
    return [`network.public_device is missing: with floating.${where} the floating IPs go on it`];
  return network.public_device === network.private_device
    ? [`network.public_device must not be network.private_device with floating.${where}`]
    : [];
}

function usesPublicDevice({ floating }: Config): boolean {
  const { provider, device } = floating;
  return device === FLOATING_DEVICE && (provider === 'hetzner' || provider === 'upcloud');
}

/**
 * @returns also the device for the addresses that are assigned here; empty if the provider's own address carries them
 */
export function apiFloating(config: Config) {
  const { floating, network } = config;
  const { mode, addresses } = floating;
  const own = floating.device === FLOATING_DEVICE ? '' : floating.device;
  return { mode, addresses, device: usesPublicDevice(config) ? (network.public_device ?? '') : own };
}

/** What the CA gave its customer for an account (external account binding); undefined: the CA asks for none. */
export function externalAccount({ certificates }: Config) {
  const { eab_kid: kid, eab_hmac_key_file: keyFile } = certificates;
  return kid === undefined || keyFile === undefined ? undefined : { kid, keyFile };
}

/** Of the certificate of the site. */
export function certificateSettings(config: Config) {
  const { certificates, edge, dns } = config;
  const { names, challenge, profile, directory, contact, terms, ca_file: caFile } = certificates;
  const server = dns.server === undefined ? undefined : `${dns.server}:${dns.port}`;
  return {
    ...{ names, challenge, profile, directory, contact, caFile },
    dns: dns.zone === undefined ? undefined : { zone: dns.zone.toLowerCase(), server },
    externalAccount: externalAccount(config),
    termsAgreed: terms === 'agreed',
    httpPort: edge.http_port,
    httpsPort: edge.https_port,
  };
}

/** Whether BIRD announces the floating IPs. */
export function announces({ floating }: Config): boolean {
  return floating.mode === 'bgp' || floating.mode === 'ranked';
}

/** The device that carries the floating IPs: one of their own, or the public one where there is no BGP. */
export function floatingDevice({ floating, network }: Config): string {
  return floating.mode === 'layer2' ? (network.public_device ?? '') : floating.device;
}

/** What the policy of an app node reads of them. */
export function floatingSettings(config: Config) {
  const { floating } = config;
  return { ...floating, device: floatingDevice(config), holdTimeS: floating.hold_time_s };
}

/** Mode `api`; the configuration has checked that the provider's settings are complete. */
export function floatingProvider({ floating, network }: Config) {
  const { provider = 'command', token_file: tokenFile = '', server_id: serverId, command } = floating;
  return { provider, tokenFile, serverId, command, publicDevice: network.public_device ?? '' };
}

/** The fixed port of epmd(1). */
const EPMD_PORT = 4369;

interface Listener {
  readonly key: string;
  readonly on: 'all addresses' | 'the private address' | '127.0.0.1';
  readonly port: number;
}

/**
 * Ports that two listeners of one host share, each as a sentence with both keys. Two HAProxys, or two listeners of one,
 * would even start with the same port, and the kernel would distribute the connections between them.
 */
export function portClashes(configs: readonly Config[]): string[] {
  const listeners = configs.flatMap((config) =>
    (config.role === 'app' ? appListeners(config) : dbListeners(config)).map((listener) =>
      configs.length === 1 ? listener : { ...listener, key: `${config.role}.toml ${listener.key}` },
    ),
  );
  return listeners.flatMap((one, index) =>
    listeners
      .slice(index + 1)
      .filter(
        (other) =>
          other.port === one.port &&
          (other.on === one.on || other.on === 'all addresses' || one.on === 'all addresses'),
      )
      .map((other) => `${one.key} and ${other.key} are both ${one.port}: each needs a port of its own`),
  );
}

/** All ports of ours on an app node, in both roles: HAProxy itself would share one of its own with a snippet. */
export function ownPorts(config: Config): number[] {
  return [...new Set([...appListeners(config), ...dbListeners(config)].map(({ port: each }) => each))];
}

function appListeners(config: Config): Listener[] {
  const { edge, services } = config;
  return [
    { key: 'edge.https_port', on: 'all addresses', port: edge.https_port },
    { key: 'edge.http_port', on: 'all addresses', port: edge.http_port },
    { key: 'edge.door_port', on: 'the private address', port: edge.door_port },
    { key: 'edge.stats_port', on: 'the private address', port: edge.stats_port },
    ...(services.some(({ limit_paths }) => limit_paths.length > 0)
      ? [{ key: 'edge.sharing_port', on: 'the private address', port: edge.sharing_port } as const]
      : []),
    { key: 'edge.database_port', on: '127.0.0.1', port: edge.database_port },
    ...daemonListeners(config),
    // Two services can be one program with two paths: they are compared only with our own ports.
    ...[...new Map(services.filter(({ local }) => local).map(({ port, name }) => [port, name]))].map(
      ([number, name]): Listener => ({ key: `service ${name}`, on: '127.0.0.1', port: number }),
    ),
  ];
}

function dbListeners(config: Config): Listener[] {
  const { couchdb } = config;
  return [
    { key: 'couchdb.http_port', on: '127.0.0.1', port: couchdb.http_port },
    { key: 'couchdb.door_port', on: 'the private address', port: couchdb.door_port },
    { key: 'couchdb.peer_port', on: 'the private address', port: couchdb.peer_port },
    { key: 'couchdb.stats_port', on: 'the private address', port: couchdb.stats_port },
    { key: 'couchdb.distribution_port', on: 'the private address', port: couchdb.distribution_port },
    { key: 'the port of epmd', on: 'the private address', port: EPMD_PORT },
    ...daemonListeners(config),
  ];
}

function daemonListeners({ libp2pPort, admissionPort, metrics, metricsPort }: Config): Listener[] {
  return [
    { key: 'network.libp2p_port', on: 'the private address', port: libp2pPort },
    { key: 'network.admission_port', on: 'the private address', port: admissionPort },
    ...(metrics.enabled
      ? [{ key: 'metrics.port', on: 'the private address', port: metricsPort } as const]
      : []),
  ];
}

/** @throws OperatorError `config-invalid` */
export function parseService(text: string, file: string): Service {
  return deepFreeze(checked(serviceSchema, tomlOf(text, file), file));
}

/**
 * Reads and checks a role's configuration and every file in services.d. A service file that cannot be read is refused;
 * `lenient` skips it, so that a starting node serves all the others.
 *
 * @throws OperatorError `config-missing`, `config-unreadable` or `config-invalid`
 */
export async function loadConfig(
  role: Role,
  paths: Paths,
  how: 'strict' | 'lenient' = 'strict',
): Promise<Config> {
  const text = await readText(paths.config);
  if (text === undefined) {
    throw new OperatorError(
      'config-missing',
      `${paths.config} does not exist`,
      `run \`bornemisza init --role ${role}\` on the first machine or \`bornemisza join -\` on a further one`,
    );
  }
  const value = written(text, paths.config);
  const notes: PassedOver[] = [];
  const statisticsPassword = await statisticsPasswordOf(value, notes);
  const common = { role, file: paths.config, statisticsPassword };
  if (role !== 'app') return configOf(value, { ...common, services: [], passedOver: notes });
  const { services, strange, refused } = await readServices(paths.services);
  if (how === 'strict') refuseFirst(refused);
  const { snippets, passedOver: leftOut } = await readSnippets(paths.snippets);
  const errorPage = await errorPageOf(value, notes);
  const passedOver = [
    ...strange,
    ...refused.map(({ code, message, next }) => ({ code, message, next })),
    ...leftOut,
    ...notes,
  ];
  return configOf(value, { ...common, services, passedOver, snippets, errorPage });
}

async function errorPageOf({ edge }: Written, passedOver: PassedOver[]): Promise<string | undefined> {
  if (edge.error_page === undefined) return undefined;
  const read = await readPage(edge.error_page);
  if ('text' in read) return read.text;
  const message = `edge.error_page: ${edge.error_page} ${read.why}; errors have HAProxy’s own page`;
  passedOver.push({ code: 'error-page-refused', message, next: read.next });
  return undefined;
}

async function statisticsPasswordOf(
  { metrics }: Written,
  passedOver: PassedOver[],
): Promise<string | null | undefined> {
  if (metrics.password_file === undefined) return undefined;
  const read = await readPassword(metrics.password_file);
  if ('text' in read) return read.text;
  const message = `metrics.password_file: ${metrics.password_file} ${read.why}; nobody can read the statistics`;
  passedOver.push({ code: 'statistics-password-refused', message, next: read.next });
  return null;
}

/** @throws OperatorError `config-unreadable` or `config-invalid` */
export async function loadServices(directory: string): Promise<Service[]> {
  const { services, refused } = await readServices(directory);
  refuseFirst(refused);
  return services;
}

function refuseFirst([first, ...rest]: readonly OperatorError[]): void {
  if (first === undefined) return;
  if (rest.length === 0) throw first;
  const message = [first, ...rest].map((each) => each.message).join('; ');
  throw new OperatorError(first.code, message, first.next, { cause: first });
}

interface ServicesRead {
  readonly services: Service[];
  readonly strange: readonly PassedOver[];
  readonly refused: readonly OperatorError[];
}

async function readServices(directory: string): Promise<ServicesRead> {
  const entries = await readDirectory(directory).catch((error: NodeJS.ErrnoException) => {
    throw unreadable(directory, error);
  });
  const services: Service[] = [];
  const refused: OperatorError[] = [];
  for (const entry of entries) {
    if ('strange' in entry) continue;
    try {
      services.push(serviceOf(entry, services));
    } catch (error) {
      if (!(error instanceof OperatorError)) throw error;
      refused.push(error);
    }
  }
  const strange = entries.flatMap((entry) =>
    'strange' in entry ? ignored('service-passed-over', entry.file, entry.strange) : [],
  );
  return { services, strange, refused };
}

/** A founder has a handful. HAProxy checks each new one, alone and beside the others. */
const MAX_SNIPPETS = 32;

/** One that cannot be read stops nothing else, at a reload either: the edge works without it. */
async function readSnippets(
  directory: string,
): Promise<{ readonly snippets: Snippets; readonly passedOver: readonly PassedOver[] }> {
  const refused = (file: string, why: string, next: string): PassedOver => ({
    code: SNIPPET_REFUSED,
    message: `${file} is left out of HAProxy’s configuration: ${why}`,
    next: `${next}, then \`bornemisza config check\` and \`bornemisza reload\``,
  });
  const passedOver: PassedOver[] = [];
  const files: { file: string; text: string }[] = [];
  const entries = await readDirectory(directory, SNIPPETS).catch((error: NodeJS.ErrnoException) => {
    passedOver.push(
      refused(directory, error.code ?? error.message, `check its owner and mode: ls -ld ${directory}`),
    );
    return [];
  });
  for (const entry of entries) {
    const { file } = entry;
    if ('strange' in entry) passedOver.push(ignored('snippet-passed-over', file, entry.strange));
    else if ('unreadable' in entry) passedOver.push(refused(file, entry.unreadable, entry.next));
    else if (files.length === MAX_SNIPPETS)
      passedOver.push(refused(file, `there are more than ${MAX_SNIPPETS}`, 'put two files into one'));
    else files.push({ file, text: entry.text });
  }
  return { snippets: files.length === 0 ? NO_SNIPPETS : { readMs: Date.now(), files }, passedOver };
}

function ignored(code: string, file: string, strange: string): PassedOver {
  return {
    code,
    message: `${file} is ${strange}: it is ignored`,
    next: 'remove it, if you do not need it',
  };
}

function serviceOf(entry: Exclude<Entry, { strange: string }>, others: readonly Service[]): Service {
  const { file } = entry;
  if ('unreadable' in entry)
    throw new OperatorError('config-unreadable', `cannot read ${file}: ${entry.unreadable}`, entry.next);
  const service = parseService(entry.text, file);
  const clash = others.some(
    (other) => other.name === service.name || other.path_prefix === service.path_prefix,
  );
  if (!clash) return service;
  throw invalid(file, [
    `name "${service.name}" or path_prefix "${service.path_prefix}" is used by another file in ` +
      basename(dirname(file)),
  ]);
}

/** @throws OperatorError `config-unreadable` */
export async function readText(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw unreadable(file, error as NodeJS.ErrnoException);
  }
}

function unreadable(file: string, error: NodeJS.ErrnoException): OperatorError {
  return new OperatorError(
    'config-unreadable',
    `cannot read ${file}: ${error.code ?? error.message}`,
    `check its owner and mode (root:bornemisza 0640): ls -l ${file}`,
    { cause: error },
  );
}

/** @throws OperatorError `config-invalid` */
export function tomlOf(text: string, file: string): unknown {
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const reason = (error.message.split('\n')[0] ?? '').replace(/^Invalid TOML document: /, '');
    throw invalid(`${file}:${error.line}:${error.column}`, [`not valid TOML: ${reason}`], error);
  }
}

function checked<S extends z.ZodType>(of: S, value: unknown, file: string): z.output<S> {
  const result = of.safeParse(value);
  if (result.success) return result.data;
  throw invalid(
    file,
    result.error.issues.flatMap((issue) => describeIssue(issue, of, value)),
  );
}

function describeIssue(issue: z.core.$ZodIssue, of: z.ZodType, value: unknown): string[] {
  const where = issue.path.map(String).join('.');
  if (issue.code === 'unrecognized_keys') {
    const known = keysAt(of, issue.path);
    return issue.keys.map((key) => {
      const near = known.length > 0 ? closest(key, known) : undefined;
      const hint =
        near !== undefined && distance(key, near) <= Math.max(2, key.length / 2)
          ? `; did you mean "${near}"?`
          : '';
      return `unknown key ${JSON.stringify([...issue.path, key].map(String).join('.'))}${hint}`;
    });
  }
  const missing = issue.code === 'invalid_type' && valueAt(value, issue.path) === undefined;
  return [missing ? `${where} is missing` : `${where}: ${issue.message}`];
}

/** Each key of a role's file as its path, e.g. `['edge', 'https_port']`. */
export function configKeys(): string[][] {
  return keysAt(schema, []).flatMap((section) => {
    const keys = keysAt(schema, [section]);
    return keys.length === 0 ? [[section]] : keys.map((key) => [section, key]);
  });
}

/** The keys of the schema at a path, to name the nearest. */
function keysAt(of: z.ZodType, path: readonly PropertyKey[]): string[] {
  let at: z.ZodType = of;
  for (const key of [...path, undefined]) {
    while (at instanceof z.ZodDefault || at instanceof z.ZodPrefault || at instanceof z.ZodOptional) {
      at = at.unwrap() as z.ZodType;
    }
    if (!(at instanceof z.ZodObject)) return [];
    if (key === undefined) return Object.keys(at.shape);
    at = (at.shape as Record<PropertyKey, z.ZodType>)[key] ?? z.never();
  }
  return [];
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((at, key) => (at as Record<PropertyKey, unknown> | undefined)?.[key], value);
}

function invalid(file: string, problems: readonly string[], cause?: unknown): OperatorError {
  return new OperatorError(
    'config-invalid',
    `${file}: ${problems.join('; ')}`,
    'correct the file, then run `bornemisza config check`',
    { cause },
  );
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    Object.values(value).forEach(deepFreeze);
  }
  return value;
}
