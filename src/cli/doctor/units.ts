import type { Config } from '../../daemon/config/config.ts';
import type { Role } from '../../daemon/membership/types.ts';
import type { Host } from '../io.ts';
import { answered } from '../answered.ts';
import { type Area, areaOf, type Check, unlessSilent } from './check.ts';

/** One unit of this host, and what is lost without it. */
interface Wanted {
  readonly unit: string;
  readonly area: Area;
  /** Undefined: the node does no duty while it does not run. Else what will not happen. */
  readonly lost?: string;
  /** Nothing else starts it after a reboot. `alone`: it matters only then. */
  readonly boot?: 'too' | 'alone';
  /** The package that has the unit. Default: ours. */
  readonly package?: string;
}

/** @param floating the floating mode of role app */
export function unitsOf(role: Role, floating: Config['floating']['mode']): readonly Wanted[] {
  const area = areaOf(role);
  const own: Wanted[] = [
    { unit: `bornemisza@${role}`, area, boot: 'too' },
    { unit: `bornemisza-haproxy@${role}`, area },
  ];
  if (role === 'db') {
    const lost = 'CouchDB is not restarted when a setting of it changes';
    own.push({ unit: 'couchdb', area, package: 'couchdb' });
    own.push({ unit: 'bornemisza-couchdb-restart.path', area, lost });
    return own;
  }
  if (floating !== 'off' && floating !== 'api') {
    if (floating !== 'layer2') own.push({ unit: 'bird', area, package: 'bird' });
    own.push({ unit: 'bornemisza-deadman', area });
  }
  const lost = 'a service that is stopped by SIGSTOP is noticed only after its health_timeout_ms';
  own.push({ unit: 'bornemisza-unit-watch', area, lost });
  return own;
}

/** Units of each machine that has a role. */
export function unitsOfHost(): readonly Wanted[] {
  const area = areaOf('host');
  return [
    { unit: 'bornemisza.target', area, boot: 'alone', lost: 'no role starts at boot' },
    { unit: 'bornemisza-upgrade.path', area, lost: 'a rollout stops at this host' },
  ];
}

/** What systemd says of them, asked once. */
export async function checkUnits(host: Host, wanted: readonly Wanted[]): Promise<readonly Check[]> {
  const names = wanted.map(({ unit }) => fileOf(unit));
  const asked = '--property=LoadState,ActiveState,SubState,UnitFileState,NRestarts';
  const area = wanted[0]?.area ?? areaOf('host');
  return unlessSilent(area, 'units', async () => {
    const said = answered(await host.run('systemctl', ['show', asked, ...names]));
    const blocks = said.stdout.trim().split('\n\n');
    if (said.code !== 0 || blocks.length !== wanted.length) {
      const next = 'the daemon can run without it: bornemisza daemon --role …';
      return [area.warn('units', 'systemd does not answer here', next)];
    }
    return wanted.map((each, at) => judge(each, propertiesOf(blocks[at] ?? '')));
  });
}

function judge(
  { unit, area, lost, boot, package: brings }: Wanted,
  state: ReadonlyMap<string, string>,
): Check {
  const wrong = (detail: string, next: string): Check =>
    lost === undefined ? area.fail(unit, detail, next) : area.warn(unit, `${detail}: ${lost}`, next);
  const active = state.get('ActiveState') ?? 'unknown';
  const enabled = state.get('UnitFileState') ?? 'unknown';
  if (state.get('LoadState') === 'masked')
    return wrong('masked', `systemctl unmask ${unit} && systemctl start ${unit}`);
  if (state.get('LoadState') === 'not-found')
    return wrong('not installed', `dnf install ${brings ?? 'bornemisza-node'}`);
  if (boot === 'alone')
    return enabled === 'enabled' ? area.ok(unit, enabled) : wrong(enabled, `systemctl enable ${unit}`);
  if (state.get('SubState') === 'auto-restart')
    return wrong('fails repeatedly', `journalctl -u ${unit} -p warning -n 20`);
  if (active === 'activating' || active === 'reloading')
    return area.warn(unit, active, `systemctl status ${unit}`);
  if (active === 'failed')
    return wrong('failed', `journalctl -u ${unit} -n 20; then systemctl restart ${unit}`);
  if (active !== 'active')
    return wrong(active, `systemctl ${boot === undefined ? 'start' : 'enable --now'} ${unit}`);
  if (boot !== undefined && enabled !== 'enabled')
    return area.warn(unit, `active, but ${enabled}: it will not start at boot`, `systemctl enable ${unit}`);
  const restarts = Number(state.get('NRestarts') ?? 0);
  return area.ok(unit, restarts > 0 ? `active; systemd has restarted it ${restarts} times` : 'active');
}

/** As systemctl does: a service, if it names no type. */
const fileOf = (unit: string): string => (/\.(path|target)$/.test(unit) ? unit : `${unit}.service`);

function propertiesOf(block: string): ReadonlyMap<string, string> {
  return new Map(
    block.split('\n').map((line) => {
      const at = line.indexOf('=');
      return [line.slice(0, at), line.slice(at + 1)];
    }),
  );
}
