import type { AuditAnswer } from '../../daemon/control/api.ts';
import type { Role } from '../../daemon/membership/types.ts';
import { ControlClient } from '../client.ts';
import { failureJson } from '../answer.ts';
import type { Host } from '../io.ts';
import { controlSocketOf } from '../places.ts';

/** One file of the bundle. */
export interface Gathered {
  readonly path: string;
  readonly text: string;
}

/** Lines of the journal for each unit: the output of a program is bounded, and nobody reads more. */
const JOURNAL_LINES = 1500;
const FEWER_LINES = 200;
/** A search in a journal of years on a slow disk takes some seconds. */
const PROGRAM_MS = 30_000;

const UNITS = [
  'bornemisza.target',
  'bornemisza-app.service',
  'bornemisza-couchdb-restart.path',
  'bornemisza-couchdb-restart.service',
  'bornemisza-deadman.service',
  'bornemisza-firewall.service',
  'bornemisza-site.service',
  'bornemisza-unit-watch.service',
  'bornemisza-upgrade.path',
  'bornemisza-upgrade.service',
  'bird.service',
  'couchdb.service',
];

/** Commands that show the host, apart from its units. */
const QUESTIONS: readonly (readonly [path: string, program: string, args: readonly string[]])[] = [
  ['host/os-release.txt', 'cat', ['/etc/os-release']],
  ['host/kernel.txt', 'uname', ['-a']],
  ['host/uptime.txt', 'uptime', []],
  ['host/memory.txt', 'free', ['-m']],
  ['host/disks.txt', 'df', ['-h']],
  ['host/inodes.txt', 'df', ['-i']],
  ['host/time.txt', 'timedatectl', []],
  ['host/addresses.txt', 'ip', ['-d', 'address']],
  ['host/routes.txt', 'ip', ['route', 'show', 'table', 'all']],
  ['host/sockets.txt', 'ss', ['-tulnp']],
  ['host/firewall.txt', 'nft', ['list', 'ruleset']],
  ['host/packages.txt', 'rpm', ['-q', 'bornemisza-node', 'bornemisza-selinux', 'haproxy', 'bird', 'couchdb']],
  ['host/processes.txt', 'ps', ['-eo', 'user,pid,ppid,stat,etime,rss,pcpu,comm']],
];

/** What only root may see. None of it is a file that another user writes: systemd and the kernel answer. */
export async function gatherAsRoot(host: Host, roles: readonly Role[], since: string): Promise<Gathered[]> {
  const units = [
    ...roles.flatMap((role) => [`bornemisza@${role}.service`, `bornemisza-haproxy@${role}.service`]),
    ...UNITS,
  ];
  const found: Gathered[] = [];
  for (const [path, program, args] of QUESTIONS) found.push({ path, text: await said(host, program, args) });
  found.push({
    path: 'units/status.txt',
    text: await said(host, 'systemctl', ['status', '--no-pager', '--lines=0', ...units]),
  });
  found.push({
    path: 'units/failed.txt',
    text: await said(host, 'systemctl', ['list-units', '--failed', '--no-pager']),
  });
  found.push({
    path: 'units/show.txt',
    text: await said(host, 'systemctl', ['show', '--no-pager', SHOWN, ...units]),
  });
  for (const unit of units) {
    const text = await journal(host, ['-u', unit], since);
    if (text !== '') found.push({ path: `journal/${unit}.txt`, text });
  }
  found.push({ path: 'journal/kernel.txt', text: await journal(host, ['-k', '-p', 'warning'], since) });
  return found;
}

/** No `Environment`: it can hold secrets. */
const SHOWN =
  '--property=Id,LoadState,ActiveState,SubState,Result,UnitFileState,FragmentPath,DropInPaths,ActiveEnterTimestamp,' +
  'InactiveEnterTimestamp,ExecMainStatus,ExecMainCode,NRestarts,MemoryCurrent,TasksCurrent,ConditionResult';

async function journal(host: Host, of: readonly string[], since: string): Promise<string> {
  const args = (lines: number): string[] => {
    return ['--no-pager', '-q', '-o', 'short-iso-precise', '--since', since, '-n', String(lines), ...of];
  };
  const ran = await host.run('journalctl', args(JOURNAL_LINES), { timeoutMs: PROGRAM_MS });
  // Fewer lines fit if they are very long.
  return ran.code === -1 ? said(host, 'journalctl', args(FEWER_LINES)) : ran.stdout;
}

async function said(host: Host, program: string, args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await host.run(program, args, { timeoutMs: PROGRAM_MS });
  const how = code === 0 ? '' : `\n(${program} ended with ${code}) ${stderr}\n`;
  return `${stdout}${how}`;
}

/** The answers of the daemon of a role, or the error. */
export async function gatherFromDaemon(role: Role, root: string): Promise<Gathered[]> {
  const daemon = new ControlClient(controlSocketOf(role, root), role);
  const ask = async (name: string, path: string): Promise<Gathered> => {
    try {
      const answer = await daemon.get<unknown>(path);
      const text =
        name === 'events.ndjson'
          ? (answer as AuditAnswer).entries.map((entry) => `${JSON.stringify(entry)}\n`).join('')
          : `${JSON.stringify(answer, null, 2)}\n`;
      return { path: `${role}/${name}`, text };
    } catch (error) {
      return { path: `${role}/${name}`, text: `${JSON.stringify(failureJson(error))}\n` };
    }
  };
  return [
    await ask('status.json', '/v1/status'),
    await ask('members.json', '/v1/members'),
    await ask('plan.json', '/v1/plan'),
    await ask('events.ndjson', '/v1/audit?limit=2000'),
    await ask('upgrade.json', '/v1/upgrade'),
  ];
}
