import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import type { Config } from '../../daemon/config/config.ts';
import type { Role } from '../../daemon/membership/types.ts';
import type { FirewallAllow, FirewallBase } from '../../plugins/firewall/rules.ts';
import { CliFailure, EXIT } from '../failure.ts';
import { answered } from '../answered.ts';
import type { Host } from '../io.ts';
import { birdPlace } from '../setup/bird-place.ts';
import { configOf, ROLES } from '../places.ts';

/** epmd(1). */
const EPMD_PORT = 4369;
/** Other programs that filter on the input hook; `nftables.service` flushes every table when it stops. */
const OTHER_FIREWALLS = ['firewalld.service', 'ufw.service', 'nftables.service'];

/**
 * The input of the rules of this host: the configuration of its roles, the ports of sshd and BIRD's neighbours. All of
 * these files belong to root.
 *
 * @throws CliFailure `firewall-no-role`, `firewall-ssh-unknown`; OperatorError of the configuration
 */
export async function gatherBase(host: Host, root: string, beside: boolean): Promise<FirewallBase> {
  const { loadConfig, pathsFor, announces } = await import('../../daemon/config/config.ts');
  const configs: Config[] = [];
  for (const role of ROLES)
    if ((await readFile(configOf(role, root)).catch(() => undefined)) !== undefined)
      configs.push(await loadConfig(role, pathsFor(role, root)));
  const [first] = configs;
  if (first === undefined)
    throw new CliFailure(
      EXIT.failure,
      'firewall-no-role',
      'no role is set up on this host, so there are no ports to open',
      'run `sudo bornemisza init` or `sudo bornemisza join -` first',
    );
  const app = configs.find(({ role }) => role === 'app');
  const { network, couchdb, edge } = first;
  return {
    roles: configs.map(({ role }): Role => role),
    sshPorts: await sshPorts(host),
    sshFrom: [...new Set(configs.flatMap(({ firewall }) => firewall.ssh_from))],
    privateDevice: network.private_device,
    privateNetwork: network.private_network,
    ports: {
      public: app === undefined ? [] : [app.edge.http_port, app.edge.https_port],
      gossip: configs.flatMap(({ libp2pPort, admissionPort }) => [libp2pPort, admissionPort]),
      appDoor: (app?.edge ?? edge).door_port,
      appSharing: (app?.edge ?? edge).sharing_port,
      appStats: (app?.edge ?? edge).stats_port,
      dbDoor: couchdb.door_port,
      dbStats: couchdb.stats_port,
      dbPeers: [couchdb.peer_port, EPMD_PORT, couchdb.distribution_port],
      metrics: configs.flatMap(({ role, metrics, metricsPort, edge, couchdb }) =>
        metrics.enabled ? [metricsPort, role === 'app' ? edge.stats_port : couchdb.stats_port] : [],
      ),
    },
    neighbours: app !== undefined && announces(app) ? await neighbours(host, root) : [],
    allow: configs.flatMap(({ firewall }) => firewall.allow.map(parseAllow)),
    beside,
  };
}

/** Every port that sshd reports: its configuration can be split over many files. */
async function sshPorts(host: Host): Promise<number[]> {
  const { code, stdout, stderr } = await host.run('sshd', ['-T']);
  const ports = [...stdout.matchAll(/^port (\d+)$/gim)].map(([, port]) => Number(port));
  if (code === 0 && ports.length > 0) return ports;
  throw new CliFailure(
    EXIT.failure,
    'firewall-ssh-unknown',
    `sshd does not report its ports (${stderr.trim().split('\n')[0] || 'no answer'}); rules without them ` +
      'could lock you out',
    'run `sudo sshd -T | grep ^port`, repair the error, and run `firewall on` again; no rule has changed',
  );
}

/** BIRD's neighbours, from root's bird.conf. */
async function neighbours(host: Host, root: string): Promise<{ address: string; multihop: boolean }[]> {
  const { config } = await birdPlace(host, root);
  const text = await readFile(config, 'utf8').catch(() => '');
  const multihop = /^\s*multihop\b/m.test(text);
  return [...text.matchAll(/^\s*neighbor\s+([\da-f.:]+)(?:\s*%\s*\S+)?\s/gim)]
    .filter(([, address = '']) => isIP(address) > 0)
    .map(([, address = '']) => ({ address, multihop }));
}

/** `tcp/9000` or `udp/53 from 192.0.2.0/24`; the configuration has validated its form. */
function parseAllow(text: string): FirewallAllow {
  const [what = '', from] = text.split(' from ');
  const [protocol, port] = what.split('/');
  return { protocol: protocol === 'udp' ? 'udp' : 'tcp', port: Number(port), from };
}

/** Other programs that filter on this host now. */
export async function otherFirewalls(host: Host): Promise<string[]> {
  const active: string[] = [];
  for (const unit of OTHER_FIREWALLS)
    if (answered(await host.run('systemctl', ['is-active', '--quiet', unit])).code === 0) active.push(unit);
  return active;
}
