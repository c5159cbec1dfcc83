import { readFile, rm } from 'node:fs/promises';
import { replaceFile, stageFile } from '../../host/files.ts';
import { describeBase, renderBase, TABLE } from '../../plugins/firewall/rules.ts';
import { CliFailure, EXIT } from '../failure.ts';
import { answered } from '../answered.ts';
import type { Host, Io, RunLimits } from '../io.ts';
import { gatherBase, otherFirewalls } from './gather.ts';
import { ORIGIN, proves, readOrigin, renderOrigin, sshSince, trialOrigin } from './session.ts';

const HELPER = 'bornemisza-firewall.service';
/** Longer than the unit's TimeoutStartSec: then systemd is the one who says what happened. */
const START_MS = 100_000;
/** The timer that ends an unconfirmed trial, and its service. */
const UNDO = 'bornemisza-firewall-undo';
const UNDO_PROGRAM = '/usr/libexec/bornemisza/firewall-undo';
/** The helper checks every 0.7 s; a unit that starts on a busy machine takes seconds. */
const LOAD_WITHIN_MS = 10_000;
const LOOK_EVERY_MS = 100;

export const basePath = (root: string): string => `${root}/etc/bornemisza/firewall.base`;
/** In /run: a reboot ends an unconfirmed trial as well. See systemd/firewall. */
export const trialPath = (root: string): string => `${root}/run/bornemisza-firewall.trial`;
/** What the helper reads; it does not run as root. */
const FILE_MODE = 0o644;

export async function turnOn(
  io: Io,
  root: string,
  { beside, withinS }: { readonly beside: boolean; readonly withinS: number },
): Promise<void> {
  mustBeRoot(io);
  const { host } = io;
  const others = await otherFirewalls(host);
  if (others.length > 0 && !beside)
    throw new CliFailure(
      EXIT.refused,
      'firewall-other',
      `${others.join(' and ')} filters here as well; with two firewalls a packet must pass both`,
      `stop it (systemctl disable --now ${others.join(' ')}), or run \`sudo bornemisza firewall on --beside\``,
    );
  const base = await gatherBase(host, root, beside);
  const { text, digest } = renderBase(base);
  io.stdout.write(
    `Who may connect to this host:\n${describeBase(base)
      .map((line) => `  ${line}\n`)
      .join('')}\n`,
  );
  const trial = `${text}${renderOrigin(await trialOrigin())}`;
  const staged = await stageFile(trialPath(root), trial, { mode: FILE_MODE });
  try {
    const check = await host.run('nft', ['-c', '-f', staged.stagedPath]);
    if (answered(check).code !== 0) throw refused(check.stderr);
    await startTimer(host, withinS);
    await staged.commit();
  } catch (error) {
    await staged.discard();
    throw error;
  }
  await mustRun(host, 'systemctl', ['start', HELPER], { timeoutMs: START_MS });
  if (!(await loaded(host, digest))) {
    await host.run(UNDO_PROGRAM, []);
    throw new CliFailure(
      EXIT.failure,
      'firewall-not-loaded',
      `${HELPER} did not load the new rules; the former state is restored`,
      `see \`journalctl -u ${HELPER}\``,
    );
  }
  io.stdout.write(
    `The rules are loaded for ${withinS} s. Open a new ssh connection to this host and type there:\n\n  ` +
      `sudo bornemisza firewall confirm\n\nWithout it they are removed again.\n`,
  );
}

export async function confirm(io: Io, root: string): Promise<void> {
  mustBeRoot(io);
  const { host } = io;
  const trial = await readFile(trialPath(root), 'utf8').catch(() => undefined);
  if (trial === undefined) throw nothingToConfirm();
  if (!proves(readOrigin(trial), await sshSince()))
    throw new CliFailure(
      EXIT.refused,
      'firewall-same-session',
      'the ssh connection of this shell is older than the rules, so it does not prove that new ones work',
      'open a new ssh connection (ssh -o ControlPath=none HOST; no tmux, no screen) and type `sudo ' +
        'bornemisza firewall confirm` there',
    );
  answered(await host.run('systemctl', ['stop', `${UNDO}.timer`]));
  // The timer may have been first.
  if ((await readFile(trialPath(root), 'utf8').catch(() => undefined)) !== trial) throw nothingToConfirm();
  const rules = trial.slice(0, trial.lastIndexOf(ORIGIN));
  await replaceFile(basePath(root), rules, { mode: FILE_MODE });
  await rm(trialPath(root), { force: true });
  await mustRun(host, 'systemctl', ['enable', HELPER]);
  io.stdout.write('The rules are kept; at each boot they are loaded before the network is up.\n');
}

export async function turnOff(io: Io, root: string): Promise<void> {
  mustBeRoot(io);
  const { host } = io;
  await host.run('systemctl', ['stop', `${UNDO}.timer`]);
  await rm(trialPath(root), { force: true });
  await rm(basePath(root), { force: true });
  answered(await host.run('systemctl', ['disable', '--now', HELPER]));
  const there = answered(await host.run('nft', ['list', 'table', 'inet', TABLE])).code === 0;
  if (there) await mustRun(host, 'nft', ['delete', 'table', 'inet', TABLE]);
  io.stdout.write(there ? 'The rules are removed: every port is open again.\n' : 'The firewall was off.\n');
}

/** Starts before the rules are loaded: if this command is killed in between, the timer still removes them. */
async function startTimer(host: Host, withinS: number): Promise<void> {
  await host.run('systemctl', ['stop', `${UNDO}.timer`]);
  await host.run('systemctl', ['reset-failed', `${UNDO}.service`]);
  await mustRun(host, 'systemd-run', [
    `--unit=${UNDO}`,
    `--on-active=${withinS}`,
    // Without this systemd can be a minute late.
    '--timer-property=AccuracySec=1s',
    UNDO_PROGRAM,
  ]);
}

async function loaded(host: Host, digest: string): Promise<boolean> {
  const deadline = performance.now() + LOAD_WITHIN_MS;
  while (performance.now() < deadline) {
    const { stdout } = await host.run('nft', ['list', 'table', 'inet', TABLE]);
    if (stdout.includes(`comment "${digest}"`)) return true;
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
  return false;
}

async function mustRun(
  host: Host,
  program: string,
  args: readonly string[],
  limits: RunLimits = {},
): Promise<void> {
  const { code, stderr } = answered(await host.run(program, args, limits));
  if (code === 0) return;
  throw new CliFailure(
    EXIT.failure,
    'firewall-command-failed',
    `${program} ${args[0]} failed: ${stderr.trim().split('\n')[0] || `status ${code}`}`,
    `run \`${program} ${args.join(' ')}\` by hand`,
  );
}

export function mustBeRoot({ host }: Io): void {
  if (host.uid === 0) return;
  throw new CliFailure(
    EXIT.permission,
    'not-permitted',
    'only root may change the rules of the firewall',
    'run the command as root: sudo bornemisza firewall …',
  );
}

function nothingToConfirm(): CliFailure {
  return new CliFailure(
    EXIT.failure,
    'firewall-unconfirmed',
    'there is nothing to confirm: no trial runs, or its time ended and the new rules were removed',
    'run `sudo bornemisza firewall on`, then confirm within 120 s',
  );
}

function refused(stderr: string): CliFailure {
  return new CliFailure(
    EXIT.failure,
    'firewall-refused',
    `nft refuses the rules: ${stderr.trim().split('\n')[0] || 'it is not installed'}; the old rules stay`,
    'check [firewall] in /etc/bornemisza/ROLE.toml; if nft is missing: dnf install nftables',
  );
}
