import type { Host, Result, Role } from '../lab/index.ts';

/** What a service user of this host can do: its name, and the unit in whose clothes it comes. */
export interface Attacker {
  readonly user: string;
  /** Undefined: a shell of that user, outside of any unit. */
  readonly unit?: string;
}

export const daemonOf = (role: Role): Attacker => ({
  user: 'bornemisza',
  unit: `bornemisza@${role}.service`,
});

/**
 * Runs a script as somebody who took a service over: in the mount namespace of its unit, with its groups and
 * capabilities, and with its refusal of new privileges. The unit's filters of system calls do not come along: what
 * holds here holds without them.
 *
 * @param args $1, $2, … of the script
 */
export async function asAttacker(
  host: Host,
  who: Attacker,
  script: string,
  args: readonly string[] = [],
): Promise<Result> {
  return host.exec(await commandOf(host, who, script, args), { timeoutMs: LONGEST_MS });
}

/** As {@link asAttacker}, in the unit's control group as well: to process 1 it is the service itself. */
export async function asService(host: Host, who: Attacker, script: string): Promise<Result> {
  const group = (await host.must(['systemctl', 'show', '-P', 'ControlGroup', who.unit ?? ''])).trim();
  const enter = 'echo $$ >"/sys/fs/cgroup$1/cgroup.procs" && shift && exec "$@"';
  const command = await commandOf(host, who, script, []);
  return host.exec(['sh', '-c', enter, 'sh', group, ...command], { timeoutMs: LONGEST_MS });
}

async function commandOf(
  host: Host,
  { user, unit }: Attacker,
  script: string,
  args: readonly string[],
): Promise<readonly string[]> {
  const shell = ['sh', '-c', script, 'sh', ...args];
  if (unit === undefined) return ['runuser', '-u', user, '--', ...shell];
  const { mainPid } = await host.unit(unit);
  if (mainPid === 0) throw new Error(`${unit} does not run`);
  const status = await host.readFile(`/proc/${mainPid}/status`);
  const of = (key: string): string[] =>
    (new RegExp(`^${key}:(.*)$`, 'm').exec(status)?.[1] ?? '').split(/\s+/).filter((each) => each !== '');
  const groups = of('Groups');
  const effective = BigInt(`0x${of('CapEff')[0] ?? '0'}`);
  const granted = CAPABILITIES.filter(([bit]) => ((effective >> BigInt(bit)) & 1n) === 1n)
    .map(([, name]) => `,+${name}`)
    .join('');
  return [
    'nsenter',
    `--target=${mainPid}`,
    '--mount',
    '--',
    'setpriv',
    `--reuid=${of('Uid')[1]}`,
    `--regid=${of('Gid')[1]}`,
    groups.length === 0 ? '--clear-groups' : `--groups=${groups.join(',')}`,
    `--inh-caps=-all${granted}`,
    `--ambient-caps=-all${granted}`,
    `--bounding-set=-all${granted}`,
    ...(of('NoNewPrivs')[0] === '1' ? ['--no-new-privs'] : []),
    '--',
    ...shell,
  ];
}

/** A race and what runs beside a command of root may take as long as that. */
const LONGEST_MS = 180_000;

/** Those that a unit of ours may have: capability.h's numbers. */
const CAPABILITIES: readonly (readonly [bit: number, name: string])[] = [
  [10, 'net_bind_service'],
  [12, 'net_admin'],
  [13, 'net_raw'],
];

/** As {@link asAttacker}; throws unless the script succeeds, since an attack that fails by itself shows nothing. */
export async function attack(host: Host, who: Attacker, script: string): Promise<string> {
  const { code, stdout, stderr } = await asAttacker(host, who, script);
  if (code !== 0) throw new Error(`the attack itself failed with ${code}: ${script}\n${stdout}${stderr}`);
  return stdout;
}
