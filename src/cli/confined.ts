import type { Host, Ran } from './io.ts';

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
): Promise<Ran> {
  if (root !== '') return await host.run(program, args);
  const asked = await host.run(program, program === 'haproxy' ? ['-v'] : ['--version']);
  if (asked.code === -1) return asked;
  const group = groupOf[program];
  const properties = [...CONFINEMENT, ...(group === undefined ? [] : [`SupplementaryGroups=${group}`])];
  const ran = await host.run('systemd-run', [
    '--quiet',
    '--pipe',
    '--wait',
    '--collect',
    '--service-type=exec',
    ...properties.map((each) => `--property=${each}`),
    '--',
    program,
    ...args,
  ]);
  if (ran.code === 0 || ran.stdout + ran.stderr !== '') return ran;
  return { ...ran, stderr: `it did not finish within ${LONGEST_S} s, or was killed` };
}
