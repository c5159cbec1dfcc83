import { migrated } from '../../daemon/config/format.ts';
import type { Role } from '../../daemon/membership/types.ts';

/** What `init` and `join` know when they write a role's first configuration. */
export interface Settings {
  readonly role: Role;
  readonly cluster: string;
  readonly host: string;
  readonly privateAddress: string;
  readonly privateNetwork: string;
  readonly privateDevice: string;
  readonly publicDevice: string | undefined;
  /** The founder's certificate with its key in one PEM file; undefined: one signed by the cluster's CA. */
  readonly certificate: string | undefined;
  /** Name of the site; undefined: no certificate is ordered. */
  readonly domain: string | undefined;
  /** Where the records of the domain are kept by the cluster, at Cloudflare. */
  readonly dns: { readonly zoneId: string; readonly tokenFile: string } | undefined;
  /** Addresses of this host that the internet reaches. */
  readonly publicAddresses: readonly string[];
  readonly floatingMode: 'off' | 'bgp' | 'ranked' | 'layer2' | 'api';
  /** Mode `api`: whose API assigns them, and the file of its token. */
  readonly floatingApi?: { readonly provider: string; readonly tokenFile: string } | undefined;
  readonly floatingAddresses: readonly string[];
  /** Of BGP; undefined: the defaults. */
  readonly holdTimeS?: number | undefined;
  readonly bfd?: boolean | undefined;
  readonly couchdbCopies: number | undefined;
  readonly couchdbRanges: number | undefined;
  /** Undefined: the usual place, or it is not installed yet. */
  readonly couchdbDirectory?: string | undefined;
}

/**
 * A role's first TOML file: the detected values, and the settings that an operator may want next, each explained.
 */
export function configText(settings: Settings): string {
  const { role } = settings;
  const text = [
    `# Bornemisza, role ${role} on ${settings.host}. \`bornemisza\` wrote this file once; you can edit it.`,
    `# After a change: bornemisza config check && systemctl reload bornemisza@${role}`,
    '',
    '[node]',
    'cluster = ' + quote(settings.cluster),
    'host = ' + quote(settings.host),
    '',
    '[network]',
    '# The cluster uses only this network.',
    'private_address = ' + quote(settings.privateAddress),
    'private_network = ' + quote(settings.privateNetwork),
    'private_device = ' + quote(settings.privateDevice),
    ...(settings.publicDevice === undefined ? [] : ['public_device = ' + quote(settings.publicDevice)]),
    ...(settings.publicAddresses.length === 0
      ? []
      : [`public_addresses = [${settings.publicAddresses.map(quote).join(', ')}]`]),
    '',
    ...(role === 'app' ? appPart(settings) : databasePart(settings)),
    '[notify]',
    '# Who is notified when a node dies, a guard holds or a certificate is near its end. Set it on at least ' +
      'two nodes; then: bornemisza notify test',
    '# mail_to = ["ops@example.com"]',
    '# mail_from = "bornemisza@example.com"',
    '# smtp_url = "smtp://mail.example.com:587"',
    '# webhook_url = "https://hooks.example.com/…"',
    '',
    '[log]',
    '# error, warn, info or debug',
    'level = "info"',
    '',
  ].join('\n');
  return migrated(text).text;
}

function appPart(settings: Settings): string[] {
  return [
    '[edge]',
    '# PEM file with certificate, chain and key. Without it the edge serves one signed by the cluster’s own CA.',
    settings.certificate === undefined
      ? '# certificate = "/etc/bornemisza/site.pem"'
      : 'certificate = ' + quote(settings.certificate),
    '',
    '[floating]',
    '# off, bgp (every healthy app node announces), ranked (the first in order of admission wins), or ' +
      'without BGP: layer2',
    '# (one node holds them on its public device), or api (the provider assigns them). The same on all app nodes.',
    'mode = ' + quote(settings.floatingMode),
    `addresses = [${settings.floatingAddresses.map(quote).join(', ')}]`,
    ...bgpPart(settings),
    ...(settings.floatingApi === undefined
      ? []
      : [
          `provider = ${quote(settings.floatingApi.provider)}`,
          '# root:bornemisza 0640. On two app nodes at least. bornemisza floating show',
          `token_file = ${quote(settings.floatingApi.tokenFile)}`,
        ]),
    '',
    ...(settings.domain === undefined ? [] : domainPart(settings.domain, settings.dns)),
  ];
}

/** bird.conf, which root owns, has them too. */
function bgpPart({ holdTimeS, bfd }: Settings): string[] {
  if (holdTimeS === undefined && bfd !== true) return [];
  return [
    '# How soon the provider notices that this machine is dead. bird.conf has them too: change both.',
    ...(holdTimeS === undefined ? [] : [`hold_time_s = ${holdTimeS}`]),
    ...(bfd === true ? ['bfd = true'] : []),
  ];
}

function domainPart(domain: string, dns: Settings['dns']): string[] {
  // Unless we manage the records, `www` may not resolve to us; a name that does not blocks the whole order.
  const names = dns === undefined ? [domain] : [domain, `www.${domain}`];
  return [
    '[certificates]',
    '# Let’s Encrypt signs it; it renews by itself. The same on all app nodes. See: bornemisza certificate show',
    `names = [${names.map(quote).join(', ')}]`,
    '# Let’s Encrypt writes to this address about problems of the account.',
    '# contact = ["ops@example.com"]',
    'terms = "agreed"',
    '',
    ...(dns === undefined
      ? []
      : [
          '[dns]',
          '# Records that follow the cluster; yours are never changed. Set it on at least two app nodes. ' +
            'See: bornemisza dns show',
          'provider = "cloudflare"',
          `zone = ${quote(domain)}`,
          `zone_id = ${quote(dns.zoneId)}`,
          `token_file = ${quote(dns.tokenFile)}`,
          '',
        ]),
  ];
}

function databasePart(settings: Settings): string[] {
  const line = (key: string, value: number | undefined, otherwise: number): string =>
    value === undefined ? `# ${key} = ${otherwise}` : `${key} = ${value}`;
  return [
    '[couchdb]',
    '# Copies of each document, and ranges of each new database. The same on all db nodes.',
    line('n', settings.couchdbCopies, 3),
    line('q', settings.couchdbRanges, 2),
    ...(settings.couchdbDirectory === undefined
      ? []
      : ['# Where CouchDB is installed.', `directory = ${quote(settings.couchdbDirectory)}`]),
    '',
  ];
}

/** A TOML basic string; JSON escapes are a subset of TOML's. */
function quote(text: string): string {
  return JSON.stringify(text);
}
