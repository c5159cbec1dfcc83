import { X509Certificate } from 'node:crypto';
import { access, constants, readdir, readFile, stat } from 'node:fs/promises';
import { isIPv6 } from 'node:net';
import { join } from 'node:path';
import {
  announces,
  type Config,
  externalAccount,
  loadConfig,
  type Paths,
  pathsFor,
} from '../../daemon/config/config.ts';
import type { Role } from '../../daemon/membership/types.ts';
import { formatDuration } from '../duration.ts';
import { tell } from '../failure.ts';
import { readAccounts } from '../../host/account.ts';
import { answered } from '../answered.ts';
import type { Host } from '../io.ts';
import { choosePrivateNetwork, inside } from '../setup/discover.ts';
import { birdPlace } from '../setup/bird-place.ts';
import { DROP_IN } from '../setup/layer2.ts';
import { readNetwork } from '../setup/links.ts';
import { type Area, areaOf, type Check, unlessSilent } from './check.ts';
import { birdConfig, haproxyConfig, type Verdicts } from './programs.ts';
import { checkSelinux } from './selinux.ts';
import { inTheWay, listeningSockets } from '../../host/listening-sockets.ts';
import { checkUnits, unitsOf } from './units.ts';

/** Certificates last 90 days and renew at half: less than this means that renewal has failed for weeks. */
const CERTIFICATE_WARN_MS = 30 * 86_400_000;
/** Programs that are expected to listen on our ports. */
const OUR_USERS = ['bornemisza', 'bornemisza-haproxy', 'couchdb', 'epmd'];

interface Looking {
  readonly role: Role;
  readonly root: string;
  readonly host: Host;
  readonly paths: Paths;
  readonly area: Area;
}

/** Checks of one role instance from outside, running or not. */
export async function checkRole(of: Host, role: Role, root: string, verdicts: Verdicts): Promise<Check[]> {
  const [paths, area] = [pathsFor(role, root), areaOf(role)];
  const looking: Looking = { role, root, host: of, paths, area };
  const [config, configCheck] = await configuration(looking);
  const checks = [configCheck, ...(await stateDirectory(looking)), ...(await units(looking, config))];
  if (config === undefined) return checks;
  return [
    ...checks,
    ...(await unlessSilent(area, 'address', async () => [await privateAddress(looking, config)])),
    await device(looking, config),
    await ports(looking, config),
    ...(root === '' ? await unlessSilent(area, 'selinux', () => selinux(looking, config)) : []),
    ...(await unlessSilent(area, 'haproxy.cfg', async () => [
      await haproxyConfig(paths, area, role, verdicts),
    ])),
    ...(announces(config) && role === 'app'
      ? await unlessSilent(area, 'bird.conf', async () => [
          await birdConfig(paths, area, verdicts, await birdPlace(of, root)),
        ])
      : []),
    ...(await ipv6(looking, config)),
    ...(await unlessSilent(area, 'arping', () => layer2(looking, config))),
    ...(await unlessSilent(area, 'dns', () => dns(looking, config))),
    ...(await floatingApi(looking, config)),
    ...(await customerKey(looking, config)),
  ];
}

async function configuration({ role, paths, area }: Looking): Promise<[Config | undefined, Check]> {
  try {
    const config = await loadConfig(role, paths);
    const services =
      config.services.length === 0 ? '' : `, services ${config.services.map((each) => each.name).join(', ')}`;
    const [passedOver] = config.passedOver;
    if (passedOver !== undefined) {
      const { message, next } = passedOver;
      return [config, area.warn('config', `${paths.config} is valid${services}; ${message}`, next)];
    }
    return [config, area.ok('config', `${paths.config} is valid${services}`)];
  } catch (error) {
    const { message, next } = tell(error);
    return [undefined, area.fail('config', message, next)];
  }
}

async function stateDirectory({ paths, area, role, root }: Looking): Promise<Check[]> {
  const facts = await stat(paths.state).catch((error: NodeJS.ErrnoException) => error);
  if (facts instanceof Error) {
    return [
      facts.code === 'ENOENT'
        ? area.fail(
            'state',
            `${paths.state} does not exist: this node has no identity`,
            `sudo bornemisza init --role ${role}, or sudo bornemisza join -`,
          )
        : area.warn('state', `${paths.state} cannot be read: ${facts.code}`, 'run doctor as root'),
    ];
  }
  const owner = root === '' ? (await readAccounts()).users.get('bornemisza')?.uid : undefined;
  if ((facts.mode & 0o077) !== 0)
    return [
      area.fail(
        'state',
        `other users can read ${paths.state}: it holds this node's keys`,
        `chmod 0700 ${paths.state}`,
      ),
    ];
  if (owner !== undefined && facts.uid !== owner) {
    return [
      area.fail(
        'state',
        `${paths.state} does not belong to user bornemisza`,
        `chown -R bornemisza:bornemisza ${paths.state}`,
      ),
    ];
  }
  return await identity(paths, area, role);
}

async function identity(paths: Paths, area: Area, role: Role): Promise<Check[]> {
  const names = await readdir(paths.state).catch(() => undefined);
  if (names === undefined)
    return [area.warn('state', `only user bornemisza can read ${paths.state}`, 'run doctor as root')];
  if (!names.includes('cluster.json')) {
    const half = names.includes('unfinished.json');
    return [
      area.fail(
        'state',
        half ? 'an init or join was interrupted' : 'this node has no identity yet',
        half
          ? 'run the same bornemisza init or join again: it continues where it stopped'
          : `sudo bornemisza init --role ${role}, or sudo bornemisza join -`,
      ),
    ];
  }
  return [
    area.ok('state', `${paths.state} is complete, and other users cannot read it`),
    await certificate(join(paths.state, 'chain.pem'), area, role),
  ];
}

async function certificate(file: string, area: Area, role: Role): Promise<Check> {
  try {
    const { validToDate } = new X509Certificate(await readFile(file));
    const leftMs = validToDate.getTime() - Date.now();
    const detail =
      leftMs > 0 ? `valid for ${formatDuration(leftMs)} more` : `expired ${formatDuration(-leftMs)} ago`;
    const next =
      `it renews by itself if an authority is reachable; if it does not: journalctl -u bornemisza@${role} -p ` +
      'warning';
    if (leftMs <= 0) return area.fail('certificate', detail, next);
    return leftMs < CERTIFICATE_WARN_MS
      ? area.warn('certificate', detail, next)
      : area.ok('certificate', detail);
  } catch (error) {
    return area.fail(
      'certificate',
      `${file} cannot be read: ${(error as Error).message}`,
      'restore it from a backup, or join again: sudo bornemisza join - --reset',
    );
  }
}

async function units(
  { role, host, root, area }: Looking,
  config: Config | undefined,
): Promise<readonly Check[]> {
  if (root !== '') return [area.ok('units', 'not checked, since --root is given')];
  const mode = role === 'app' ? config?.floating.mode : undefined;
  return checkUnits(host, unitsOf(role, mode ?? 'off'));
}

async function privateAddress({ host, area }: Looking, config: Config): Promise<Check> {
  const { private_address: address, private_device: name, private_network: network } = config.network;
  const here = (await readNetwork(host)).addresses;
  const found = here.find(
    (each) => each.address === address || (each.kind === 'loopback' && address.startsWith('127.')),
  );
  if (found === undefined) {
    const others = here
      .filter((each) => each.kind !== 'loopback')
      .map((each) => `${each.address} on ${each.device}`);
    return area.fail(
      'address',
      `${address} is not on this host, which has ${others.join(', ') || 'no address'}`,
      'bring the device up, or correct private_address',
    );
  }
  if (found.device !== name)
    return area.fail('address', `${address} is on ${found.device}, not on ${name}`, 'correct private_device');
  if (network.endsWith('/32') || !inside(address, network)) {
    return area.fail(
      'address',
      `private_network ${network} ` +
        `${inside(address, network) ? 'holds only this node' : `does not hold ${address}`}: no other node ` +
        'can connect here',
      `correct private_network${found.network.endsWith('/32') ? '' : `: ${choosePrivateNetwork(found)}`}`,
    );
  }
  if (found.kind !== 'loopback' && !found.network.endsWith('/32') && found.network !== network) {
    return area.warn(
      'address',
      `${address} lies in ${found.network}, the configuration says ${network}`,
      'correct private_network',
    );
  }
  return area.ok('address', `${address} on ${name}`);
}

async function device({ area }: Looking, config: Config): Promise<Check> {
  const names = [
    config.network.private_device,
    ...(config.network.public_device === undefined ? [] : [config.network.public_device]),
  ];
  const down: string[] = [];
  for (const name of names) {
    const carrier = await readFile(`/sys/class/net/${name}/carrier`, 'utf8').catch(() => '0');
    if (carrier.trim() !== '1') down.push(name);
  }
  if (down.length === 0) return area.ok('devices', `${names.join(', ')} up`);
  return area.fail('devices', `${down.join(', ')} down or absent`, `ip link; ip link set ${down[0]} up`);
}

/** All ports of this role, from the configuration: `*` is every address. */
export function portsOf(config: Config): readonly (readonly [address: string, port: number])[] {
  const inside = config.network.private_address;
  const others: [string, number][] =
    config.role === 'app'
      ? []
      : [
          ['127.0.0.1', config.couchdb.http_port],
          [inside, config.couchdb.distribution_port],
        ];
  const metrics: [string, number][] = config.metrics.enabled ? [[inside, config.metricsPort]] : [];
  return [[inside, config.libp2pPort], ...metrics, ...haproxyPortsOf(config), ...others];
}

function haproxyPortsOf({
  role,
  network,
  edge,
  couchdb,
  services,
}: Config): [address: string, port: number][] {
  const inside = network.private_address;
  if (role === 'db')
    return [couchdb.door_port, couchdb.peer_port, couchdb.stats_port].map((each) => [inside, each]);
  return [
    ['*', edge.https_port],
    ['*', edge.http_port],
    [inside, edge.door_port],
    [inside, edge.stats_port],
    ...(services.some(({ limit_paths }) => limit_paths.length > 0)
      ? [[inside, edge.sharing_port] satisfies [string, number]]
      : []),
    ['127.0.0.1', edge.database_port],
  ];
}

async function selinux({ host, area }: Looking, config: Config): Promise<Check[]> {
  return checkSelinux(
    host,
    area,
    haproxyPortsOf(config).map(([, port]) => port),
  );
}

async function ports({ area, root, host }: Looking, config: Config): Promise<Check> {
  const sockets = await listeningSockets();
  const { users } = await readAccounts();
  const ours = new Set(root === '' ? OUR_USERS.map((name) => users.get(name)?.uid) : [host.uid]);
  const foreign = portsOf(config).flatMap(([address, port]) =>
    inTheWay(sockets, address, port)
      .filter((each) => !ours.has(each.uid))
      .map((each) => `${each.address}:${port}`),
  );
  if (foreign.length === 0) return area.ok('ports', 'free, or used by our own programs');
  const port = foreign[0]?.split(':')[1];
  return area.fail(
    'ports',
    `used by another program: ${[...new Set(foreign)].join(', ')}`,
    `find it: ss -ltnp 'sport = :${port}'; stop it, or change the port in the configuration`,
  );
}

/** The drop-in of a former mode belongs to root, so the daemon cannot remove it. */
async function unneededRight(root: string, area: Area): Promise<Check[]> {
  const file = `${root}${DROP_IN}`;
  const missing = await access(file).then(
    () => false,
    () => true,
  );
  if (missing) return [];
  return [
    area.warn(
      'arping',
      `${file} allows the daemon to send ARP (CAP_NET_RAW), which only floating.mode "layer2" needs`,
      `rm ${file}; systemctl daemon-reload; systemctl restart bornemisza@app`,
    ),
  ];
}

/** The kernel refuses an IPv6 address where IPv6 is off. */
async function ipv6({ root, area }: Looking, { role, floating }: Config): Promise<Check[]> {
  const address = role === 'app' ? floating.addresses.find(isIPv6) : undefined;
  if (floating.mode === 'off' || address === undefined) return [];
  const settings = `${root}/proc/sys/net/ipv6/conf`;
  const read = (of: string): Promise<string | undefined> =>
    readFile(`${settings}/${of}/disable_ipv6`, 'utf8').catch(() => undefined);
  const state = (await read(floating.device)) ?? (await read('default'));
  if (state === undefined && root !== '') return [];
  if (state?.trim() === '0') return [area.ok('IPv6', `is on, for ${address}`)];
  return [
    area.fail(
      'IPv6',
      `is off on this host, so ${address} cannot be put on ${floating.device}: it is not announced here`,
      state === undefined
        ? 'boot the kernel without ipv6.disable=1, or remove the address from floating.addresses'
        : `sysctl -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0, and the same in ` +
            '/etc/sysctl.d',
    ),
  ];
}

/** Layer 2 moves the floating IPs by ARP, which needs a program and a capability that no other mode needs. */
async function layer2({ host, root, area }: Looking, config: Config): Promise<Check[]> {
  if (config.role !== 'app') return [];
  if (config.floating.mode !== 'layer2') return await unneededRight(root, area);
  const { code } = answered(await host.run('arping', ['-V']));
  if (code === -1)
    return [
      area.fail(
        'arping',
        'arping is not installed: this node cannot take a floating IP',
        'dnf install iputils (or apt-get install iputils-arping)',
      ),
    ];
  if (root !== '') return [area.ok('arping', 'installed')];
  const asked = ['show', '--property=AmbientCapabilities', 'bornemisza@app.service'];
  const unit = answered(await host.run('systemctl', asked));
  if (unit.stdout.includes('cap_net_raw')) return [area.ok('arping', 'installed, and the daemon may use it')];
  return [
    area.fail(
      'arping',
      'the daemon may not send ARP (CAP_NET_RAW): this node cannot take a floating IP',
      'write /etc/systemd/system/bornemisza@app.service.d/layer2.conf as docs/install.md has it, ' +
        'systemctl daemon-reload, systemctl restart bornemisza@app',
    ),
  ];
}

/** Who made this machine, as its firmware says; UpCloud's is from public source, the others from memory. */
const VENDORS: Readonly<Record<string, string>> = {
  digitalocean: 'DigitalOcean',
  hetzner: 'Hetzner',
  upcloud: 'UpCloud',
};

/** What assigns the floating IPs: the provider's token, or the operator's program. */
async function floatingApi({ root, area }: Looking, { role, floating }: Config): Promise<Check[]> {
  if (role !== 'app' || floating.mode !== 'api') return [];
  const { provider = '', token_file: token = '', command } = floating;
  const [program] = command;
  if (provider === 'command') {
    const missing = await unreachable(program ?? '', constants.X_OK);
    if (missing === undefined) return [area.ok('floating', `${program} can be run by the daemon`)];
    const mend = `sudo chmod 755 ${program}`;
    return [area.fail('floating', `${program} cannot be run (${missing}): no floating IP is moved`, mend)];
  }
  const vendor = await readFile(`${root}/sys/class/dmi/id/sys_vendor`, 'utf8').catch(() => '');
  const wanted = VENDORS[provider] ?? '';
  const other = vendor.trim() !== '' && !vendor.toLowerCase().includes(wanted.toLowerCase());
  return [
    await secretFile(area, 'floating', token, 'no floating IP is moved'),
    ...(other
      ? [
          area.warn(
            'floating',
            `this machine is of ${vendor.trim()}, and floating.provider is "${provider}"`,
            'correct floating.provider, unless the firmware of this provider says something else',
          ),
        ]
      : []),
  ];
}

async function unreachable(file: string, how: number): Promise<string | undefined> {
  return access(file, how).then(
    () => undefined,
    (error: NodeJS.ErrnoException) => error.code,
  );
}

/** Called when root is given up: what cannot be read here the daemon cannot read. */
async function secretFile(area: Area, name: string, file: string, lost: string): Promise<Check> {
  const mend = `sudo chown root:bornemisza ${file} && sudo chmod 640 ${file}`;
  const unreadable = await unreachable(file, constants.R_OK);
  if (unreadable !== undefined)
    return area.fail(name, `${file} cannot be read (${unreadable}): ${lost}`, mend);
  const { mode } = await stat(file);
  if ((mode & 0o007) !== 0) return area.warn(name, `every user of this host can read ${file}`, mend);
  return area.ok(name, `only root and the daemon can read ${file}`);
}

/** Of a CA that makes accounts only for its customers. */
async function customerKey({ area }: Looking, config: Config): Promise<Check[]> {
  const file = externalAccount(config)?.keyFile;
  return file === undefined
    ? []
    : [await secretFile(area, 'certificates', file, 'no account can be created at the CA')];
}

/** The key of the zone, and the programs that use it. */
async function dns({ host, area }: Looking, { dns: config }: Config): Promise<Check[]> {
  if (config.provider === 'off') return [];
  const file = (config.provider === 'cloudflare' ? config.token_file : config.key_file) ?? '';
  const check = await secretFile(area, 'dns', file, 'no record is kept');
  if (check.state !== 'ok') return [check];
  if (config.provider === 'rfc2136' && answered(await host.run('nsupdate', ['-V'])).code === -1)
    return [area.fail('dns', 'nsupdate is not installed: no record is updated', 'dnf install bind-utils')];
  return [check];
}
