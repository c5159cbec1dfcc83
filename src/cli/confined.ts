import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Host, Ran, RunLimits } from './io.ts';

/** HAProxy and BIRD read their files in milliseconds; a busy machine needs longer, and a FIFO never ends. */
const LONGEST_S = 15;

/**
 * The user whose files HAProxy and BIRD check, and the confinement of that user's unit: a program can run what the
 * files name (`lua-load` does), and must gain no right that their writer lacks. No network: a check of a file needs
 * none.
 */
const CONFINEMENT = [
  'User=bornemisza',
  'Group=bornemisza',
  'SupplementaryGroups=bornemisza-haproxy',
  'NoNewPrivileges=yes',
  'CapabilityBoundingSet=',
  'PrivateNetwork=yes',
  'ProtectSystem=strict',
  'ProtectHome=yes',
  'PrivateTmp=yes',
  'PrivateDevices=yes',
  'DevicePolicy=closed',
  'ProtectClock=yes',
  'ProtectControlGroups=yes',
  'ProtectHostname=yes',
  'ProtectKernelLogs=yes',
  'ProtectKernelModules=yes',
  'ProtectKernelTunables=yes',
  'ProtectProc=invisible',
  'RestrictNamespaces=yes',
  'RestrictRealtime=yes',
  'RestrictSUIDSGID=yes',
  'LockPersonality=yes',
  'KeyringMode=private',
  'RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK',
  'SystemCallArchitectures=native',
  'SystemCallFilter=@system-service',
  'SystemCallFilter=~@privileged @resources',
  'SystemCallErrorNumber=EPERM',
  'UMask=0077',
  'LimitCORE=0',
  'MemoryMax=512M',
  'TasksMax=64',
  `RuntimeMaxSec=${LONGEST_S}`,
];

/** Groups that another package may or may not have made. */
const groupOf: Readonly<Record<string, string>> = { bird: 'bird', birdc: 'bird' };

/**
 * Runs a program over files that the daemon writes: as the daemon's user and confined as its unit is, never as root.
 * Under `--root` all files are the caller's own, and so is the program.
 *
 * @returns code -1 where the program is not installed
 */
export async function runConfined(
  host: Host,
  root: string,
  program: 'haproxy' | 'bird' | 'birdc',
  args: readonly string[],
  limits: UnitLimits = {},
): Promise<Ran> {
  if (root !== '') return await host.run(program, args);
  const asked = await host.run(program, program === 'haproxy' ? ['-v'] : ['--version']);
  if (asked.code === -1) return asked;
  const group = groupOf[program];
  const properties = [...CONFINEMENT, ...(group === undefined ? [] : [`SupplementaryGroups=${group}`])];
  // By env, which SELinux lets leave systemd's own domain: EL has no way from there to HAProxy's with no new
  // privileges.
  const ran = await runAsUnit(host, properties, ['env', program, ...args], limits);
  if (ran.code === 0 || ran.stdout + ran.stderr !== '') return ran;
  return { ...ran, stderr: `it did not finish within ${LONGEST_S} s, or was killed` };
}

/** Of each of its two files: nobody else bounds what it prints. */
const OUTPUT_BYTES = 1024 * 1024;

interface UnitLimits extends Pick<RunLimits, 'timeoutMs'> {
  /** Directory that only root writes; /run where left out. */
  readonly run?: string;
}

/**
 * Runs a command as a transient unit and waits for its end. Its output comes by files in a directory of the caller's
 * own, not by `systemd-run --pipe`: D-Bus has to take the pipes then, and EL's SELinux policy does not let it take
 * cloud-init's.
 */
export async function runAsUnit(
  host: Host,
  properties: readonly string[],
  command: readonly string[],
  { run = '/run', ...limits }: UnitLimits = {},
): Promise<Ran> {
  const directory = await mkdtemp(join(run, 'bornemisza-run-'));
  try {
    const files = { out: join(directory, 'out'), err: join(directory, 'err') };
    const to = [
      `LimitFSIZE=${OUTPUT_BYTES}`,
      `StandardOutput=file:${files.out}`,
      `StandardError=file:${files.err}`,
    ];
    const how = ['--quiet', '--wait', '--collect', '--service-type=exec'];
    const given = [...properties, ...to].map((each) => `--property=${each}`);
    const ran = await host.run('systemd-run', [...how, ...given, '--', ...command], limits);
    // Absent where the unit was not started.
    const said = async (path: string): Promise<string> =>
      await readFile(path, 'utf8').catch((error: unknown) => {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
        throw error;
      });
    return {
      code: ran.code,
      stdout: await said(files.out),
      stderr: ran.stderr + (await said(files.err)),
    };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
