import { type Command, InvalidArgumentError } from 'commander';
import { printJson } from '../answer.ts';
import type { Io } from '../io.ts';
import { addVerb, type CommonOptions } from '../verb.ts';

interface OnOptions extends CommonOptions {
  readonly beside?: boolean;
  readonly within: number;
}

/** Each command reads root's configuration and the kernel's table, and nothing that a daemon or the helper writes. */
const AS_ROOT = 'it changes or lists rules of the kernel, and reads root’s files only';

/** Only root changes rules; the helper learns the members from the daemons. */
export function addFirewall(program: Command, io: Io): void {
  const firewall = addVerb(program, 'firewall', {
    summary: 'close every port of this host except those that the cluster needs',
  });
  addVerb(firewall, 'on', {
    summary: 'load the rules on trial; `firewall confirm` keeps them',
    description:
      'Builds the rules from the configuration of this host, checks and loads them. They are removed after ' +
      '120 s unless you type `firewall confirm` in a new ssh connection, so that a mistake locks nobody out. ' +
      'Run it again after you change ports, roles of this host, or sshd.',
    asRoot: AS_ROOT,
    examples: ['sudo bornemisza firewall on', 'sudo bornemisza firewall on --beside'],
  })
    .option('--beside', 'another firewall filters here too: filter only the member ports')
    .option('--within <seconds>', 'how long the trial lasts, 10 to 3600', seconds, 120)
    .action(async (options: OnOptions) => {
      const { turnOn } = await import('../firewall/turn.ts');
      await turnOn(io, options.root ?? '', { beside: options.beside === true, withinS: options.within });
    });
  addVerb(firewall, 'confirm', {
    summary: 'keep the rules of the trial, also after a reboot',
    description:
      'Keeps the rules that `firewall on` loaded. Type it in a new ssh connection, which proves that ssh still works.',
    asRoot: AS_ROOT,
    examples: ['sudo bornemisza firewall confirm'],
  }).action(async (options: CommonOptions) => {
    const { confirm } = await import('../firewall/turn.ts');
    await confirm(io, options.root ?? '');
  });
  addVerb(firewall, 'off', {
    summary: 'remove the rules at once, also for the next boot',
    asRoot: AS_ROOT,
    examples: ['sudo bornemisza firewall off'],
  }).action(async (options: CommonOptions) => {
    const { turnOff } = await import('../firewall/turn.ts');
    await turnOff(io, options.root ?? '');
  });
  addVerb(firewall, 'status', {
    summary: 'show whether the rules are loaded, whom they allow and what they dropped',
    asRoot: AS_ROOT,
    examples: ['sudo bornemisza firewall status', 'sudo bornemisza firewall status --json'],
    json: true,
  }).action(async (options: CommonOptions) => {
    const { status, picture } = await import('../firewall/status.ts');
    const found = await status(io, options.root ?? '');
    if (options.json === true) printJson(io, found);
    else io.stdout.write(picture(found));
  });
}

function seconds(text: string): number {
  const value = Number(text);
  if (!/^\d{1,4}$/.test(text) || value < 10 || value > 3600)
    throw new InvalidArgumentError('It must be a number of seconds, 10 to 3600.');
  return value;
}
