import type { Command } from 'commander';
import type { MemberRow, MembersAnswer } from '../../daemon/control/api.ts';
import { printJson } from '../answer.ts';
import { formatDuration } from '../duration.ts';
import { anyDaemonOf } from '../instances.ts';
import type { Io } from '../io.ts';
import { type Paint, paintFor, paintWord } from '../paint.ts';
import { renderTable } from '../table.ts';
import type { AuthorityOptions, RotateOptions } from '../setup/options.ts';
import { addVerb, type CommonOptions } from '../verb.ts';

const RECOVERY =
  'only root may read and write the recovery bundle; stateWork does what touches the daemon’s directories';

export function addAuthority(program: Command, io: Io): void {
  const authority = addVerb(program, 'authority', {
    summary: 'the nodes that may admit, remove and renew',
    root: false,
  });
  addVerb(authority, 'add', {
    summary: 'make this node an authority',
    description:
      'Makes this node an authority: it may admit nodes, remove them and renew their certificates. Use it ' +
      'to add an authority, or to get one again after all were lost. Needs the recovery bundle of ' +
      '`bornemisza init`, from a file or from standard input, and its passphrase: from ' +
      '--passphrase-file, else from the terminal, else from the line after the bundle. The daemon may ' +
      'run. Needs root.',
    examples: [
      'sudo bornemisza authority add /root/bundle.txt',
      'sudo bornemisza authority add -',
      'sudo bornemisza authority add /root/bundle.txt --passphrase-file /root/passphrase --role db',
    ],
    role: true,
    json: true,
    asRoot: RECOVERY,
  })
    .argument('[bundle]', 'file that holds the recovery bundle, or - for standard input', '-')
    .option('--passphrase-file <file>', 'file that holds the passphrase of the recovery bundle')
    .action(async (bundle: string, options: AuthorityOptions) => {
      const { addThisNode } = await import('../setup/authority.ts');
      await addThisNode(io, bundle, options);
    });
  addVerb(authority, 'list', {
    summary: 'list the authorities',
    description:
      'Lists the nodes that may admit, remove and renew, as this node sees them. With three or more nodes, ' +
      'two let you lose one. The node that answers is marked with *.',
    examples: ['bornemisza authority list', 'bornemisza authority list --json'],
    role: true,
    json: true,
  }).action(async (options: CommonOptions) => {
    const { members } = await (await anyDaemonOf(options)).get<MembersAnswer>('/v1/members');
    const authorities = members.filter((each) => each.authority);
    if (options.json === true) printJson(io, { authorities });
    else io.stdout.write(renderAuthorities(authorities, paintFor(io.stdout), io.stdout.columns));
  });
  addRotateRoot(authority, io);
}

function addRotateRoot(authority: Command, io: Io): void {
  addVerb(authority, 'rotate-root', {
    summary: 'replace the root CA of the cluster by a new one',
    description:
      'Creates a new root CA of the cluster. Run it on an authority, with the recovery bundle of the ' +
      'present root and its passphrase. It first writes the new bundle to a file and shows its passphrase, ' +
      'as `bornemisza init` does. Both roots are valid then; ' +
      'each member switches by itself, and `bornemisza status` lists those that have not. Then --end, with ' +
      'the new bundle, ends the old root for good. Members that are away switch when they return. ' +
      'Needs root.',
    examples: [
      'sudo bornemisza authority rotate-root -',
      'sudo bornemisza authority rotate-root old.txt --passphrase-file old.pass --recovery-file new.txt',
      'sudo bornemisza authority rotate-root --end new.txt',
    ],
    role: true,
    json: true,
    asRoot: RECOVERY,
  })
    .argument('[bundle]', 'file that holds the recovery bundle, or - for standard input', '-')
    .option('--passphrase-file <file>', 'file that holds the passphrase of the recovery bundle')
    .option('--recovery-file <file>', 'where to write the new bundle and its passphrase')
    .option('--end', 'end the old root; needs the new bundle')
    .option('--again', 'create another new root, if the bundle of the new one was lost; needs the old bundle')
    .option('--force', 'with --end: even if reachable members do not use the new root yet')
    .action(async (bundle: string, options: RotateOptions) => {
      const { rotateRoot } = await import('../setup/rotate-root.ts');
      await rotateRoot(io, bundle, options);
    });
}

function renderAuthorities(authorities: readonly MemberRow[], paint: Paint, columns: number): string {
  if (authorities.length === 0)
    return 'none: `sudo bornemisza authority add` makes a node one, with the recovery bundle\n';
  const rows = authorities.map((each) => [
    each.self ? `${each.name} *` : each.name,
    each.address,
    `${paintWord(paint, each.state)} ${formatDuration(each.stateForMs)}`,
  ]);
  return renderTable(['AUTHORITY', 'ADDRESS', 'STATE'], rows, { columns, paint });
}
