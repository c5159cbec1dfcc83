import { isIPv4, isIPv6 } from 'node:net';
import { dirname } from 'node:path';
import type { Config, Paths } from '../../daemon/config/config.ts';
import { isGlobalUnicast } from '../../host/public-address.ts';
import type { Role } from '../../daemon/membership/types.ts';
import { type Ids, readAccounts } from '../../host/account.ts';
import { readIfPresent, replaceFile } from '../../host/files.ts';
import { CliFailure, EXIT } from '../failure.ts';
import type { Instance } from '../instances.ts';
import type { Io } from '../io.ts';
import { foundOrAsked } from './ask.ts';
import { presetOf } from './bgp-presets.ts';
import { birdStep } from './bird.ts';
import { configText, type Settings } from './config-text.ts';
import { USUAL_DIRECTORY } from '../../host/couchdb-directory.ts';
import { couchdbPlace } from './couchdb-place.ts';
import { type DomainSetup, domainOf } from './domain.ts';
import { type Address, choosePrivate, choosePrivateNetwork, choosePublic, nameNode } from './discover.ts';
import { type FloatingApiSetup, floatingApiOf } from './floating-api.ts';
import { layer2Step } from './layer2.ts';
import { type HostNetwork, readNetwork } from './links.ts';
import type { SetupOptions } from './options.ts';
import { ensureAccounts, ensureDirectory, giveToGroup } from './owners.ts';
import { stateWork } from './state-work.ts';
import type { Step } from './steps.ts';

/**
 * Everything about this node that `init` and `join` have in common, detected and checked before anything is written.
 */
export interface NodeSetup {
  readonly role: Role;
  readonly root: string;
  readonly paths: Paths;
  /** The configuration that exists or will be written. */
  readonly config: Config;
  /** The text of that file. */
  readonly configText: string;
  readonly facts: readonly (readonly [string, string])[];
  /** Its public address, or the private one where it has none. */
  readonly reachedAt: string;
  /** Accounts, directories, configuration, BIRD: all but the identity, which comes last because it decides. */
  readonly steps: readonly Step[];
}

interface Wanted {
  readonly role: Role;
  /** From the token, or from --cluster; undefined: from the host name. */
  readonly cluster: string | undefined;
}

/** @throws CliFailure, OperatorError: nothing was changed */
export async function prepare(io: Io, options: SetupOptions, wanted: Wanted): Promise<NodeSetup> {
  const root = options.root ?? '';
  const { role } = wanted;
  if (root === '' && io.host.uid !== 0) {
    throw new CliFailure(
      EXIT.permission,
      'not-root',
      'set-up needs root: it writes /etc/bornemisza and creates users',
      'run it with sudo',
    );
  }
  await refuseWhileRunning(io, role, root);
  const { announces, pathsFor } = await import('../../daemon/config/config.ts');
  const paths = pathsFor(role, root);
  const network = await readNetwork(io.host);
  const { addresses } = network;
  const domain = await domainOf(options, { role, root, paths });
  const floatingApi = await floatingApiOf(options, { role, root, paths });
  const couchdb = role === 'db' ? await couchdbPlace(io.host, root) : undefined;
  const found = { paths, network, domain, floatingApi, couchdb };
  const { text, present } = await configurationText(io, options, wanted, found);
  const config = await parsed(text, role, paths, present);
  if (present) {
    refuseContradiction(config, options, wanted, paths.config);
    choosePrivate(addresses, {
      address: config.network.private_address,
      device: config.network.private_device,
    });
  }
  const reachedAt = publicAddress(addresses, config) ?? config.network.private_address;
  return {
    role,
    root,
    paths,
    config,
    configText: text,
    reachedAt,
    facts: [
      ['node', `${config.node.host}/${role} of cluster ${config.node.cluster}`],
      [
        'private',
        `${config.network.private_address} on ${config.network.private_device} (${config.network.private_network})`,
      ],
      ['public', config.network.public_device ?? 'no device that faces the internet'],
      role === 'app' ? ['site', siteOf(config, reachedAt)] : ['CouchDB', couchdbFact(config, couchdb)],
      ...(config.floating.mode === 'off'
        ? []
        : ([['floating', `${config.floating.addresses.join(', ')} by ${config.floating.mode}`]] as const)),
    ],
    steps: [
      ...(root === '' ? [accountsStep(io)] : []),
      directoriesStep(paths, role, root),
      configStep(paths.config, text, present, root),
      ...domain.steps,
      ...floatingApi.steps,
      ...(role === 'app' && announces(config)
        ? [await birdStep(io, options, { paths, root, config, routerId: reachedAt })]
        : []),
      ...(role === 'app' && config.floating.mode === 'layer2' ? [await layer2Step(io, options, root)] : []),
    ],
  };
}

async function refuseWhileRunning(io: Io, role: Role, root: string): Promise<void> {
  const all: readonly Instance[] = await stateWork(io, root, 'instances', { root });
  const running = all.find((each) => each.role === role && each.socket !== 'absent');
  if (running === undefined) return;
  throw new CliFailure(
    EXIT.failure,
    'daemon-running',
    `bornemisza@${role} runs on this host, which is already part of a cluster`,
    `see it: bornemisza status --role ${role}; to start over: bornemisza leave --role ${role}, then ` +
      `systemctl stop bornemisza@${role}`,
  );
}

async function configurationText(
  io: Io,
  options: SetupOptions,
  wanted: Wanted,
  found: {
    readonly paths: Paths;
    readonly network: HostNetwork;
    readonly domain: DomainSetup;
    readonly floatingApi: FloatingApiSetup;
    readonly couchdb: string | undefined;
  },
): Promise<{ text: string; present: boolean }> {
  const { paths, domain, couchdb } = found;
  const { addresses, defaultRoutes } = found.network;
  const kept = await readIfPresent(paths.config);
  if (kept !== undefined) return { text: kept, present: true };
  const asked = options.json === true ? undefined : io;
  const { host, cluster } = await foundOrAsked(
    asked,
    { codes: ['cluster-unknown'], prompt: 'Name of the cluster, e.g. shop' },
    (answer) => nameNode(io.host.hostname(), { host: options.host, cluster: answer ?? wanted.cluster }),
  );
  const floating = options.floatingIp ?? [];
  const own = addresses.filter((each) => !floating.includes(each.address));
  const inside = await foundOrAsked(
    asked,
    {
      codes: ['private-address-ambiguous', 'private-address-unsure'],
      prompt: 'Address for the cluster’s own traffic',
    },
    (answer) =>
      choosePrivate(own, { address: answer ?? options.privateAddress, device: options.privateDevice }),
  );
  const privateNetwork = await foundOrAsked(
    asked,
    {
      codes: ['private-network-unknown'],
      prompt: 'Network of your nodes’ private addresses, e.g. 10.0.0.0/16',
    },
    (answer) => choosePrivateNetwork(inside, answer ?? options.privateNetwork),
  );
  const publicDevice = choosePublic(own, {
    privateDevice: inside.device,
    wish: options.publicDevice,
    defaultRoutes,
  });
  const text = configText({
    role: wanted.role,
    cluster,
    host,
    privateAddress: inside.address,
    privateNetwork,
    privateDevice: inside.device,
    publicDevice,
    certificate: options.certificate,
    ...domain.settings,
    publicAddresses: publicAddressesOf(own, publicDevice, domain.settings.dns),
    floatingMode: options.floatingMode ?? (floating.length > 0 ? 'bgp' : 'off'),
    floatingAddresses: floating,
    holdTimeS: options.bgpHoldTime,
    bfd: options.bgpBfd ?? presetOf(options.bgpProvider)?.bfd,
    ...found.floatingApi.settings,
    couchdbCopies: options.couchdbN,
    couchdbRanges: options.couchdbQ,
    couchdbDirectory: couchdb === USUAL_DIRECTORY ? undefined : couchdb,
  });
  return { text, present: false };
}

/**
 * A file that exists must be valid; a new one is checked too, so that a bad option is reported before it is written.
 */
async function parsed(text: string, role: Role, paths: Paths, present: boolean): Promise<Config> {
  const { parseConfig } = await import('../../daemon/config/config.ts');
  try {
    return parseConfig(text, role, present ? paths.config : 'the options given');
  } catch (error) {
    if (present) throw error;
    throw new CliFailure(EXIT.usage, 'options-invalid', (error as Error).message, 'correct the options', {
      cause: error,
    });
  }
}

/** An existing configuration wins over detected values; if it contradicts an option, the command refuses. */
function refuseContradiction(config: Config, options: SetupOptions, wanted: Wanted, file: string): void {
  const said: readonly (readonly [string, string | undefined, string])[] = [
    ['cluster', wanted.cluster, config.node.cluster],
    ['host', options.host, config.node.host],
    ['private_address', options.privateAddress, config.network.private_address],
    ['private_device', options.privateDevice, config.network.private_device],
    ['private_network', options.privateNetwork, config.network.private_network],
    ['floating mode', options.floatingMode, config.floating.mode],
    ['floating provider', options.floatingProvider, config.floating.provider ?? ''],
    ['floating addresses', options.floatingIp?.join(','), config.floating.addresses.join(',')],
    ['hold time', options.bgpHoldTime?.toString(), config.floating.hold_time_s.toString()],
    ['BFD', options.bgpBfd?.toString(), config.floating.bfd.toString()],
    ['certificate', options.certificate, config.edge.certificate ?? ''],
    ['domain', options.domain, config.certificates.names[0] ?? ''],
  ];
  const clash = said.find(([, wish, there]) => wish !== undefined && wish !== there);
  if (clash === undefined) return;
  const [key, wish, there] = clash;
  throw new CliFailure(
    EXIT.failure,
    'config-differs',
    `${file} says ${key} ${JSON.stringify(there)}, this command ${JSON.stringify(wish)}`,
    'correct the file, or move it away to have it written again',
  );
}

/** For the DNS records of this node; the configuration accepts one of each family. */
function publicAddressesOf(
  own: readonly Address[],
  device: string | undefined,
  dns: Settings['dns'],
): readonly string[] {
  const found = own.find((each) => each.device === device && isGlobalUnicast(each.address));
  return dns === undefined || found === undefined ? [] : [found.address];
}

/** The URL of the site: by its name, else by the floating IP, if there is one. */
function siteOf({ edge, floating, certificates }: Config, own: string): string {
  const port = edge.https_port === 443 ? '' : `:${edge.https_port}`;
  const all = floating.mode === 'off' ? [] : floating.addresses;
  const [address = own] = [...all.filter(isIPv4), ...all.filter(isIPv6).map((each) => `[${each}]`)];
  const first = certificates.names.find((name) => !name.startsWith('*.')) ?? address;
  return `https://${first}${port}/`;
}

/** An existing configuration may name another place than the one that was found. */
function couchdbFact({ couchdb: { directory } }: Config, found: string | undefined): string {
  if (found === directory) return `in ${directory}`;
  if (found === undefined)
    return `not found: install it in ${directory}, or set couchdb.directory in db.toml to its place`;
  return `in ${found}, but couchdb.directory in db.toml says ${directory}: correct that file`;
}

function publicAddress(addresses: readonly Address[], config: Config): string | undefined {
  const own = addresses.filter((each) => !config.floating.addresses.includes(each.address));
  return own.find((each) => each.device === config.network.public_device)?.address;
}

function accountsStep(io: Io): Step {
  return {
    title: 'create the user and directories of the package that are missing',
    run: async () => {
      await ensureAccounts(io.host);
      return undefined;
    },
  };
}

/** As tmpfiles.d makes them; here for hosts without it, and under --root. */
function directoriesStep(paths: Paths, role: Role, root: string): Step {
  return {
    title: `make ${paths.state}`,
    run: async () => {
      const accounts = root === '' ? await readAccounts() : undefined;
      const daemon = accounts?.users.get('bornemisza');
      const ids = (uid: number | undefined, group: string): Ids | undefined => {
        const gid = accounts?.groups.get(group);
        return uid === undefined || gid === undefined ? undefined : { uid, gid };
      };
      await ensureDirectory(dirname(paths.config), 0o750, ids(accounts && 0, 'bornemisza'));
      await ensureDirectory(paths.services, 0o750, ids(accounts && 0, 'bornemisza'));
      await ensureDirectory(dirname(paths.state), 0o755);
      await ensureDirectory(paths.state, 0o700, daemon);
      await ensureDirectory(dirname(paths.haproxyFiles), 0o755);
      await ensureDirectory(paths.haproxyFiles, 0o2750, ids(daemon?.uid, 'bornemisza-haproxy'));
      if (role === 'app') {
        await ensureDirectory(paths.birdFragments, 0o2750, ids(daemon?.uid, 'bird'));
        await ensureDirectory(paths.accountsFiles, 0o2750, ids(daemon?.uid, 'bornemisza-app'));
      } else await ensureDirectory(paths.couchdbFiles, 0o2750, ids(daemon?.uid, 'couchdb'));
      return undefined;
    },
  };
}

function configStep(file: string, text: string, present: boolean, root: string): Step {
  return {
    title: `write ${file}`,
    already: present ? 'it exists and is kept' : undefined,
    run: async () => {
      await replaceFile(file, text, { mode: 0o640 });
      if (root === '') await giveToGroup(file);
      return undefined;
    },
  };
}
