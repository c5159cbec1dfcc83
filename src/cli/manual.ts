import type { Command } from 'commander';
import { EXIT_MEANINGS } from './failure.ts';
import { Verb } from './verb.ts';

/** A command as the reader meets it: its words, e.g. `token create`, and the command itself. */
interface Leaf {
  readonly path: string;
  readonly command: Command;
}

/** Every command that does something, in the order of the help; groups and hidden commands are left out. */
export function leavesOf(command: Command, path = ''): Leaf[] {
  const children = command
    .createHelp()
    .visibleCommands(command)
    .filter((each) => each.name() !== 'help');
  if (children.length === 0) return [{ path, command }];
  const below = children.flatMap((child) =>
    leavesOf(child, path === '' ? child.name() : `${path} ${child.name()}`),
  );
  // A group that does something itself has examples of it.
  const acts = path !== '' && command instanceof Verb && command.examples.length > 0;
  return acts ? [{ path, command }, ...below] : below;
}

/** The manual page bornemisza(8) in mdoc(7), made from the command tree so that it cannot lag behind it. */
export function manualPage(program: Command): string {
  return [
    '.\\" Made from the command tree by `node scripts/man.ts`. Do not edit.',
    '.Dd November 22, 2026',
    '.Dt BORNEMISZA 8',
    '.Os',
    '.Sh NAME',
    '.Nm bornemisza',
    '.Nd keep the programs of a small cluster configured for the cluster as it is now',
    '.Sh SYNOPSIS',
    '.Nm',
    '.Ar command',
    '.Op Ar options',
    '.Sh DESCRIPTION',
    ...escaped(program.description()),
    'Each node runs one daemon for each of its roles,',
    '.Ql app',
    'or',
    '.Ql db ,',
    'started by',
    '.Xr systemd 1',
    'as',
    '.Ql bornemisza@app.service',
    'or',
    '.Ql bornemisza@db.service .',
    'This command sets up a node, queries its daemon over the control socket, and finds problems.',
    '.Pp',
    'Errors are printed to standard error: one sentence and the next step.',
    'With',
    '.Fl -json',
    'an error is one object with',
    '.Ql error.code ,',
    '.Ql error.message',
    'and',
    '.Ql error.next .',
    'Colours are used only on a terminal, and not if',
    '.Ev NO_COLOR',
    'is set.',
    '.Sh COMMANDS',
    ...leavesOf(program).flatMap(section),
    ...fileSection(),
    '.Sh EXIT STATUS',
    '.Bl -tag -width Ds',
    ...EXIT_MEANINGS.flatMap(([code, meaning]) => [`.It ${code}`, ...escaped(`${meaning}.`)]),
    '.El',
    '.Sh SEE ALSO',
    '.Xr systemctl 1 ,',
    '.Xr journalctl 1 ,',
    '.Xr haproxy 1 ,',
    '.Xr bird 8',
    '',
  ].join('\n');
}

function section({ path, command }: Leaf): string[] {
  const help = command.createHelp();
  const options = help.visibleOptions(command).filter((option) => option.long !== '--help');
  const examples = command instanceof Verb ? command.examples : [];
  const given = command.registeredArguments.map((each) => (each.required ? each.name() : `[${each.name()}]`));
  return [
    `.Ss ${[path, ...given].join(' ')}`,
    ...escaped(command.description()),
    ...(options.length === 0
      ? []
      : [
          '.Bl -tag -width Ds',
          ...options.flatMap((option) => [
            `.It ${flag(option.flags)}`,
            ...escaped(`${help.optionDescription(option)}.`),
          ]),
          '.El',
        ]),
    ...(examples.length === 0
      ? []
      : [
          '.Pp',
          'Examples:',
          '.Bd -literal -offset indent',
          ...examples.flatMap((line) => escaped(line)),
          '.Ed',
        ]),
  ];
}

/** `-f, --follow` or `--limit <count>` in mdoc's words. */
function flag(flags: string): string {
  return flags
    .split(/,\s*/)
    .map((each) => {
      const [name = '', ...rest] = each.split(' ');
      const value = rest.join(' ').replaceAll(/[<>[\]]/g, '');
      return `Fl ${name.slice(1)}${value === '' ? '' : ` Ar ${value}`}`;
    })
    .join(' , ');
}

function fileSection(): string[] {
  const files: readonly (readonly [string, string])[] = [
    ['/etc/bornemisza/ROLE.toml', 'configuration of a role instance, root:bornemisza 0640'],
    [
      '/etc/bornemisza/services.d/*.toml',
      'services of your own that the edge serves: name, port, path_prefix, health_path',
    ],
    ['/etc/bornemisza/haproxy.d/*.cfg', 'parts of your own of HAProxy’s configuration on an app node'],
    ['/var/lib/bornemisza/ROLE', 'identity and state of a role instance, only for user bornemisza'],
    ['/run/bornemisza/ROLE/control.sock', 'control socket: HTTP with JSON, for root and group bornemisza'],
    [
      '/run/bornemisza/deadman/heartbeat',
      'sign of life of role app, which bornemisza-deadman.service reads; see operations.md',
    ],
    [
      '/run/bornemisza/unit-watch/watched',
      'units of services, which bornemisza-unit-watch.service watches for a stop',
    ],
    ['/etc/bird/bornemisza.d', 'what the daemon announces, included by BIRD’s own bird.conf'],
  ];
  return [
    '.Sh FILES',
    '.Bl -tag -width Ds',
    ...files.flatMap(([path, what]) => [`.It Pa ${path}`, ...escaped(`${what}.`)]),
    '.El',
  ];
}

/** Text for roff: no line starts a macro, no backslash an escape, and hyphens stay hyphens. */
function escaped(text: string): string[] {
  return text.split('\n').map((line) =>
    line
      .replaceAll('\\', '\\e')
      .replaceAll('-', '\\-')
      .replaceAll('’', '\\(cq')
      .replace(/^([.'])/, '\\&$1'),
  );
}
