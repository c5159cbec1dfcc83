/** The generated files, from the desired state alone: equal desired state, equal bytes. */
import { createHash } from 'node:crypto';
import { USUAL_DIRECTORY } from '../../host/couchdb-directory.ts';
import { addressOf, type CouchDbDesired, type CouchDbSettings } from './desired.ts';

export interface ConfigFile {
  /** Name inside the configuration directory. */
  readonly name: string;
  readonly content: string;
  readonly mode: number;
}

/** Readable by CouchDB through the directory's group, by nobody else. */
const MODE = 0o640;

/**
 * Digest (16 hexadecimal characters) over what must be the same on every node. A joiner with another digest is not
 * admitted: with another cookie its join answers 201 and never connects.
 */
export function clusterDigest(settings: CouchDbSettings): string {
  const shared = [
    settings.cookie,
    settings.secret,
    settings.adminName,
    settings.adminHash,
    settings.uuid,
    settings.q,
    settings.n,
    settings.distributionPort,
    settings.netTicktimeS,
    settings.reconnectIntervalS,
    settings.tcpUserTimeoutMs,
    settings.tls === undefined ? 'plain' : 'tls',
    settings.epmd,
  ];
  return digestOf(shared.map(String));
}

/** Digest over everything that needs a restart of CouchDB. Certificates do not: Erlang reads them again. */
export function restartDigest(desired: CouchDbDesired, directory: string): string {
  const { cookie, releaseDirectory } = desired.settings;
  const moved = releaseDirectory === USUAL_DIRECTORY ? [] : [releaseDirectory];
  return digestOf([ini(desired, [], ''), vmArgs(desired, directory), cookie, ...moved]);
}

/** Distinguishes cookies and reveals nothing about them. */
export function cookieDigest({ cookie }: CouchDbSettings): string {
  return digestOf(['cookie', cookie]);
}

/**
 * All files. `seeds` are node names to contact at the start, only for an emptied node whose name the others know: a
 * node that was never in would join by them alone, without the document that keeps new databases off it.
 */
export function configFiles(
  desired: CouchDbDesired,
  directory: string,
  seeds: readonly string[],
): ConfigFile[] {
  const { settings } = desired;
  const files: ConfigFile[] = [
    { name: 'bornemisza.ini', content: ini(desired, seeds, restartDigest(desired, directory)), mode: MODE },
    { name: 'vm.args', content: vmArgs(desired, directory), mode: MODE },
    { name: 'cookie', content: settings.cookie, mode: MODE },
    { name: 'couchdb.env', content: environment(desired, directory), mode: MODE },
  ];
  if (settings.tls === undefined) return files;
  return [
    ...files,
    { name: 'ca-cert.pem', content: settings.tls.caPem, mode: MODE },
    { name: 'cert.pem', content: settings.tls.certPem, mode: MODE },
    { name: 'key.pem', content: settings.tls.keyPem, mode: MODE },
    { name: 'couch_dist.conf', content: distributionOptions(directory), mode: MODE },
  ];
}

function ini(desired: CouchDbDesired, seeds: readonly string[], digest: string): string {
  const { settings } = desired;
  const seedlist = seeds.length === 0 ? [] : [`seedlist = ${[...seeds].sort().join(',')}`];
  return lines(
    '; Written by bornemisza; changes are overwritten. Your own settings belong in local.ini.',
    '[couchdb]',
    `uuid = ${settings.uuid}`,
    `database_dir = ${settings.dataDirectory}/data`,
    `view_index_dir = ${settings.dataDirectory}/data`,
    '; Every start begins in maintenance; the daemon ends it at run time, after the proof that all ' +
      'copies are complete.',
    'maintenance_mode = true',
    '; People with an account see their own document of _users, which its _security must say.',
    'users_db_security_editable = true',
    '; A database for each user, and none for one that was deleted.',
    '[couch_peruser]',
    'enable = true',
    'delete_dbs = true',
    '[chttpd]',
    `bind_address = ${settings.httpAddress}`,
    `port = ${settings.httpPort}`,
    '[chttpd_auth]',
    `secret = ${settings.secret}`,
    '; The password of an account is 256 random bits: 600000 rounds would only cost time.',
    'upgrade_hash_on_auth = false',
    '[admins]',
    `${settings.adminName} = ${settings.adminHash}`,
    '[cluster]',
    `q = ${settings.q}`,
    `n = ${settings.n}`,
    `reconnect_interval_sec = ${settings.reconnectIntervalS}`,
    ...seedlist,
    '[smoosh]',
    `state_dir = ${settings.dataDirectory}/data`,
    '[bornemisza]',
    `settings = ${digest}`,
    '; Which cookie the process started with: 64 bits of a digest over more than 200 random ones.',
    `cookie = ${cookieDigest(settings)}`,
  );
}

function vmArgs(desired: CouchDbDesired, directory: string): string {
  const { settings, self } = desired;
  const interfaceTuple = `{${self.address.split('.').join(',')}}`;
  return lines(
    `-name ${self.nodeName}`,
    ...(settings.epmd ? [] : ['-start_epmd false', `-erl_epmd_port ${settings.distributionPort}`]),
    `-kernel inet_dist_use_interface ${interfaceTuple}`,
    `-kernel inet_dist_listen_min ${settings.distributionPort} inet_dist_listen_max ${settings.distributionPort}`,
    `-kernel net_ticktime ${settings.netTicktimeS}`,
    ...userTimeout(settings.tcpUserTimeoutMs),
    '-kernel error_logger silent',
    '-kernel prevent_overlapping_partitions false',
    '-sasl sasl_error_logger false',
    ...(settings.tls === undefined
      ? []
      : ['-proto_dist couch', '-couch_dist no_tls false', `-ssl_dist_optfile ${directory}/couch_dist.conf`]),
    '-ssl session_lifetime 300',
    '+SDio 16',
    '+zdbbl 32768',
    '+Bd -noinput',
    '-os_mon start_cpu_sup false',
    '-os_mon start_memsup false',
    '-os_mon disk_space_check_interval 5',
    '-os_mon disk_almost_full_threshold 1.0',
  );
}

/** TCP_USER_TIMEOUT (option 18 of level 6, TCP) as four bytes, little endian: x86-64 and aarch64 both are. */
function userTimeout(timeoutMs: number): string[] {
  if (timeoutMs === 0) return [];
  const bytes = [0, 8, 16, 24].map((shift) => (timeoutMs >> shift) & 0xff).join(',');
  const option = `[{raw,6,18,<<${bytes}>>}]`;
  return [`-kernel inet_dist_connect_options ${option} inet_dist_listen_options ${option}`];
}

/** Mutual TLS 1.3; `fail_if_no_peer_cert` is an option of the listening side only. */
function distributionOptions(directory: string): string {
  const common = [
    `{cacertfile, "${directory}/ca-cert.pem"}`,
    `{certfile, "${directory}/cert.pem"}`,
    `{keyfile, "${directory}/key.pem"}`,
    "{versions, ['tlsv1.3']}",
    '{verify, verify_peer}',
  ].join(', ');
  return lines(`[{server, [${common}, {fail_if_no_peer_cert, true}]},`, ` {client, [${common}]}].`);
}

/** For systemd's EnvironmentFile. The last ini file is the one that the server writes. */
function environment(desired: CouchDbDesired, directory: string): string {
  const { settings, self } = desired;
  const inis = [
    `${settings.releaseDirectory}/etc/default.ini`,
    `${directory}/bornemisza.ini`,
    `${settings.dataDirectory}/local.ini`,
  ];
  return lines(
    `COUCHDB_ARGS_FILE=${directory}/vm.args`,
    `COUCHDB_INI_FILES="${inis.join(' ')}"`,
    `ERL_EPMD_ADDRESS=${addressOf(self.nodeName)}`,
    // Read by systemd/couchdb, which knows the usual place.
    ...(settings.releaseDirectory === USUAL_DIRECTORY
      ? []
      : [`COUCHDB_DIRECTORY=${settings.releaseDirectory}`]),
  );
}

function digestOf(parts: readonly string[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 16);
}

function lines(...all: readonly string[]): string {
  return `${all.join('\n')}\n`;
}
