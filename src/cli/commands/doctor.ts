import type { Command } from 'commander';
import { printJson } from '../answer.ts';
import type { Check } from '../doctor/check.ts';
import { CliFailure, EXIT } from '../failure.ts';
import { type Instance, instances } from '../instances.ts';
import type { Io } from '../io.ts';
import { type Paint, paintFor, paintWord } from '../paint.ts';
import { renderTable } from '../table.ts';
import { addVerb, type CommonOptions } from '../verb.ts';
import { duration, waitFor } from './wait.ts';

export function addDoctor(program: Command, io: Io): void {
  addVerb(program, 'doctor', {
    summary: 'find problems on this machine',
    description:
      'Checks the machine, the configuration, the identity, the programs and the daemon, and prints the next ' +
      'step for each problem. Works before the first start and after it. Exit code 1 if a check fails. As ' +
      'root it checks more.',
    examples: [
      'sudo bornemisza doctor',
      'sudo bornemisza doctor --wait 60s',
      'sudo bornemisza doctor --role db',
      'bornemisza doctor --json | jq \'.checks[] | select(.state == "fail")\'',
    ],
    role: true,
    json: true,
    asRoot: 'it has systemd run HAProxy and BIRD confined as the daemon’s user; then it drops root',
  })
    .option(
      '--wait <duration>',
      'wait up to this long for a node that has just started, then check',
      duration,
    )
    .action(async (options: DoctorOptions) => {
      const checks = await examine(io, options);
      if (options.json === true) printJson(io, { ok: checks.every((each) => each.state !== 'fail'), checks });
      else io.stdout.write(renderChecks(checks, paintFor(io.stdout), io.stdout.columns));
      refuseFailed(checks);
    });
}

interface DoctorOptions extends CommonOptions {
  readonly wait?: number;
}

function refuseFailed(checks: readonly Check[]): void {
  const failed = checks.filter((each) => each.state === 'fail');
  const [first] = failed;
  if (first === undefined) return;
  const count = failed.length === 1 ? 'one check' : `${failed.length} checks`;
  throw new CliFailure(
    EXIT.failure,
    'doctor-found',
    `${count} failed; first: ${first.name}: ${first.detail}`,
    first.next,
  );
}

/** Runs as root first, then drops root and runs as the daemon's user. */
export async function examine(io: Io, options: DoctorOptions): Promise<Check[]> {
  const { role, root = '' } = options;
  const [
    { checkHost },
    { checkRole },
    { checkCluster },
    { areaOf, unlessSilent },
    { askPrograms },
    { askFirewall, checkFirewall },
  ] = await Promise.all([
    import('../doctor/host.ts'),
    import('../doctor/role.ts'),
    import('../doctor/cluster.ts'),
    import('../doctor/check.ts'),
    import('../doctor/programs.ts'),
    import('../doctor/firewall.ts'),
  ]);
  const verdicts = await askPrograms(io.host, root, role);
  const firewall = await unlessSilent(areaOf('host'), 'firewall', async () =>
    checkFirewall(await askFirewall(io, root)),
  );
  if (root === '') await io.host.becomeDaemon();
  if (options.wait !== undefined) await waitFor('serving', options, options.wait);
  const all = await instances(root);
  const present = (each: Instance): boolean => each.socket !== 'absent' || each.configured === 'yes';
  const chosen = all.filter((each) => (role === undefined ? present(each) : each.role === role));
  const roles = chosen.map((each) => each.role);
  // Before the first set-up: what either role would need.
  const checks = await checkHost(io.host, root, roles.length === 0 ? ['app'] : roles, roles.length > 0);
  if (chosen.length > 0) checks.push(...firewall);
  if (chosen.length === 0) {
    checks.push(
      areaOf('node').warn(
        'set-up',
        'this host is not part of a cluster yet',
        'sudo bornemisza init --role app, or sudo bornemisza join -',
      ),
    );
  }
  for (const instance of chosen) {
    checks.push(...(await checkRole(io.host, instance.role, root, verdicts)));
    checks.push(...(await checkCluster(io.host, instance, root)));
  }
  return checks;
}

function renderChecks(checks: readonly Check[], paint: Paint, columns: number): string {
  const rows = checks.map((check) => [
    check.area,
    check.name,
    paintWord(paint, check.state),
    check.next === '' ? check.detail : `${check.detail} -- ${check.next}`,
  ]);
  const count = (state: Check['state']): number => checks.filter((each) => each.state === state).length;
  const table = renderTable(['WHERE', 'WHAT', 'STATE', 'DETAIL'], rows, { columns, paint });
  return `${table}\n${count('ok')} ok, ${count('warn')} warnings, ${count('fail')} failed\n`;
}
