/** What the tests ask a machine about the product on it. */
import type { StatusAnswer } from '../../src/daemon/control/api.ts';
import { until } from '../support/until.ts';
import type { Machine } from './machine.ts';

/** A daemon, its programs and the command, on one slow processor that others use as well. */
export const SETTLE_MS = 300_000;

/**
 * Process 1 asks the kernel once, before any unit, whether it may use its audit; EL's policy has a switch for that,
 * init_audit_control, which is off.
 */
const ASKED_AT_BOOT =
  /avc: +denied +\{ audit_control \} for +pid=1 comm="systemd" capability=30 +scontext=(\S+:init_t:s0) tcontext=\1 /;

/** What the kernel, systemd and D-Bus refused since the boot, and what had no valid context. */
export async function refusals(machine: Machine): Promise<string[]> {
  const lines = await kernelSaid(machine, 'SELinux:  Initializing|avc: +denied|type=1401 |seresult=denied');
  // Else the first lines are gone, and refusals with them.
  if (!lines.some((line) => line.includes('SELinux:  Initializing')))
    throw new Error('the log of the kernel is not whole');
  const refused = lines.filter((line) => !line.includes('SELinux:  Initializing'));
  const asked = refused.findIndex((line) => ASKED_AT_BOOT.test(line));
  return refused.filter((_, at) => at !== asked);
}

async function kernelSaid(machine: Machine, pattern: string): Promise<string[]> {
  const said = await machine.must(`dmesg | grep -E '${pattern}' || true`);
  return said.split('\n').filter((line) => line !== '');
}

/**
 * Domains in which a program was started since the boot by systemd, or by a service that has no domain of its own; see
 * seen-starting.cil.
 */
export async function startedIn(machine: Machine, path: string): Promise<string[]> {
  const lines = await kernelSaid(machine, `avc: +granted .* path="${path}"`);
  const seen = lines.flatMap((line) => {
    const target = line.includes('{ transition }') ? 'tcontext' : 'scontext';
    return new RegExp(` ${target}=[^:]+:[^:]+:([^:]+):`).exec(line)?.[1] ?? [];
  });
  return [...new Set(seen)].toSorted();
}

/** Domains of all processes of a unit. */
export async function domainsOf(machine: Machine, unit: string): Promise<string[]> {
  const lines = (await machine.must('ps -eo label,unit --no-headers'))
    .split('\n')
    .map((line) => line.trim().split(/\s+/));
  const labels = lines.flatMap(([label = '', of]) => (of === unit ? [label.split(':')[2] ?? ''] : []));
  return [...new Set(labels)];
}

export async function status(machine: Machine, role: string): Promise<StatusAnswer> {
  const socket = `/run/bornemisza/${role}/control.sock`;
  return JSON.parse(
    await machine.must(`curl -sS --unix-socket ${socket} http://daemon/v1/status`),
  ) as StatusAnswer;
}

export const slowly = (what: string): { deadlineMs: number; everyMs: number; what: string } => ({
  deadlineMs: SETTLE_MS,
  everyMs: 500,
  what,
});

/** Starts the daemon of a role, and waits until its HAProxy has its configuration. */
export async function startRole(machine: Machine, role: string): Promise<void> {
  await machine.must(`systemctl enable --now bornemisza@${role}.service`, SETTLE_MS);
  await until(
    async () =>
      (await status(machine, role)).plugins.some(
        ({ name, state }) => name === 'haproxy' && state === 'converged',
      ),
    slowly(`HAProxy of role ${role} as it is to be`),
  );
}

export async function workersOf(machine: Machine, role: string): Promise<string> {
  return machine.must(`pgrep -P $(systemctl show -P MainPID bornemisza-haproxy@${role}.service)`);
}
