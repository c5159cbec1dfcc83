import type { MembersAnswer, StatusAnswer } from '../../daemon/control/api.ts';
import type { Role } from '../../daemon/membership/types.ts';
import { ControlClient, notRunning } from '../client.ts';
import { formatDuration } from '../duration.ts';
import { tell } from '../failure.ts';
import { type Instance, noMember } from '../instances.ts';
import type { Host } from '../io.ts';
import { controlSocketOf } from '../places.ts';
import { type Area, areaOf, type Check, unlessSilent } from './check.ts';
import { certificateIn } from '../commands/certificate.ts';
import { checkCertificate } from './certificate.ts';
import { fullPackets } from './path.ts';

/**
 * CouchDB takes about ten seconds from its start to its first answer, and the checks need some more to rise.
 */
const STARTING_MS = 60_000;

/** What the running daemon reports of itself and its peers, or that it does not run. */
export async function checkCluster(of: Host, instance: Instance, root: string): Promise<Check[]> {
  const area = areaOf(instance.role);
  if (instance.socket === 'forbidden') {
    return [area.fail('control socket', 'it is for root and group bornemisza', 'run doctor with sudo')];
  }
  if (instance.socket === 'absent') {
    const { message, next } = instance.left ? noMember(instance.role) : notRunning(instance.role);
    return [area.fail('daemon', message, next)];
  }
  const daemon = new ControlClient(controlSocketOf(instance.role, root), instance.role);
  try {
    const status = await daemon.get<StatusAnswer>('/v1/status');
    const { members } = await daemon.get<MembersAnswer>('/v1/members');
    return [
      area.ok('control socket', `answers: ${status.name} of cluster ${status.cluster}, ${status.phase}`),
      health(status, area),
      peers(members, area, instance.role),
      ...(await unlessSilent(area, 'packets', () => fullPackets(of, members, area))),
      settings(members, area),
      guards(status, area),
      ...plugins(status, area),
      ...(certificateIn(status) === undefined ? [] : await checkCertificate(daemon, status, members, area)),
      ...status.warnings.map(({ message, next }) => area.warn('note', message, next)),
    ];
  } catch (error) {
    const { message, next } = tell(error);
    return [area.fail('control socket', message, next)];
  }
}

function health(status: StatusAnswer, area: Area): Check {
  if (status.phase === 'left')
    return area.warn(
      'health',
      'it has left the cluster',
      `delete the machine, or: sudo bornemisza leave --wipe --role ${status.role}`,
    );
  const down = status.checks.filter((check) => check.health === 'down');
  const names = down
    .map((check) => (check.detail === '' ? check.name : `${check.name} (${check.detail})`))
    .join(', ');
  if (status.health === 'down' && status.upMs < STARTING_MS)
    return area.warn(
      'health',
      `starting for ${formatDuration(status.upMs)}: ${names}`,
      'sudo bornemisza doctor --wait 60s',
    );
  if (status.health === 'down')
    return area.fail('health', `down: ${names}`, 'repair what the check names; the node recovers by itself');
  if (status.maintenance) return area.warn('health', 'up, but in maintenance', 'bornemisza maintenance off');
  return down.length > 0
    ? area.warn('health', `up, but ${names} is down`, 'bornemisza status')
    : area.ok('health', 'up');
}

function peers(members: MembersAnswer['members'], area: Area, role: Role): Check {
  const others = members.filter((each) => !each.self);
  const lost = others.filter(
    (each) => each.state === 'dead' || each.state === 'suspect' || each.state === 'absent',
  );
  if (others.length === 0)
    return area.warn(
      'peers',
      'none: this node is alone',
      'bornemisza token create --role app (or db) admits another',
    );
  if (lost.length === 0)
    return area.ok(
      'peers',
      others.length === 1 ? 'the other one is reachable' : `all ${others.length} others are reachable`,
    );
  const names = lost.map((each) => `${each.name} ${each.state}`).join(', ');
  const next =
    lost.length === others.length
      ? `check the private network first: ping, and journalctl -u bornemisza@${role} -p warning`
      : `bornemisza explain ${lost[0]?.name}`;
  return lost.length === others.length
    ? area.fail('peers', `none of ${others.length} reachable: ${names}`, next)
    : area.warn('peers', names, next);
}

/** Cluster-wide settings are in each node's own file: a difference shows in the digest. */
function settings(members: MembersAnswer['members'], area: Area): Check {
  const mine = members.find((each) => each.self);
  const differing = members.filter(
    (each) =>
      each.state === 'alive' && each.role === mine?.role && each.settingsDigest !== mine.settingsDigest,
  );
  if (differing.length === 0) return area.ok('settings', 'the same on all nodes of this role');
  return area.warn(
    'settings',
    `cluster-wide settings differ on ${differing.map((each) => each.name).join(', ')}`,
    'compare /etc/bornemisza/*.toml of these nodes with this one',
  );
}

function guards(status: StatusAnswer, area: Area): Check {
  if (status.held.length === 0) return area.ok('guards', 'nothing is held');
  const all = (of: 'message' | 'next'): string => status.held.map((each) => each[of]).join('; ');
  return area.warn('guards', all('message'), all('next'));
}

function plugins(status: StatusAnswer, area: Area): Check[] {
  const said = new Set(status.warnings.map(({ code }) => code));
  return status.plugins.flatMap((plugin) => [
    pluginCheck(plugin, area),
    ...plugin.alarms
      .filter(({ code }) => !said.has(code))
      .map(({ message, next }) => area.fail(plugin.name, message, next)),
  ]);
}

function pluginCheck(plugin: StatusAnswer['plugins'][number], area: Area): Check {
  if (plugin.state === 'failing' || plugin.state === 'stopped')
    return area.fail(
      plugin.name,
      `${plugin.state}: ${plugin.detail}`,
      plugin.next === '' ? 'bornemisza events' : plugin.next,
    );
  if (plugin.state === 'converged') {
    const seen =
      plugin.seen === undefined ? '' : `; ${plugin.seen} (${formatDuration(plugin.seenAgoMs ?? 0)} ago)`;
    return area.ok(plugin.name, `converged${seen}`);
  }
  return area.warn(
    plugin.name,
    plugin.detail === '' ? plugin.state : plugin.detail,
    plugin.next === '' ? 'bornemisza plan' : plugin.next,
  );
}
