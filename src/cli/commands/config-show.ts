import type { Command } from 'commander';
import type { ShownConfig, ShownKey } from '../../daemon/config/shown.ts';
import { printJson } from '../answer.ts';
import { printable } from '../client.ts';
import { configuredRoles } from '../instances.ts';
import type { Io } from '../io.ts';
import { type Paint, paintFor } from '../paint.ts';
import { renderTable } from '../table.ts';
import { addVerb, type CommonOptions } from '../verb.ts';

export function addConfigShow(config: Command, io: Io): void {
  addVerb(config, 'show', {
    summary: 'show what the configuration files set',
    description:
      'Shows what /etc/bornemisza/ROLE.toml and services.d set, as the daemon would read them now. ' +
      '--effective shows every key with its value, and whether the value is the default. Possible secrets ' +
      'are hidden. Needs no daemon and changes nothing. The daemon uses a changed file after ' +
      '`bornemisza reload`.',
    examples: [
      'bornemisza config show',
      'bornemisza config show --effective --role app',
      'bornemisza config show --effective --json | jq \'.files[].keys[] | select(.key == "edge.https_port")\'',
    ],
    role: true,
    json: true,
  })
    .option('--effective', 'also show the keys that the file does not set')
    .action(async (options: CommonOptions & { readonly effective?: boolean }) => {
      await showConfig(io, options);
    });
}

async function showConfig(io: Io, options: CommonOptions & { readonly effective?: boolean }): Promise<void> {
  const [{ shownConfig }, { pathsFor }] = await Promise.all([
    import('../../daemon/config/shown.ts'),
    import('../../daemon/config/config.ts'),
  ]);
  const files: ShownConfig[] = [];
  for (const role of await configuredRoles(options)) {
    const shown = await shownConfig(role, pathsFor(role, options.root));
    const keys = shown.keys.filter(({ from }) => options.effective === true || from === 'file');
    files.push({ ...shown, keys });
  }
  if (options.json === true) printJson(io, { files });
  else {
    const paint = paintFor(io.stdout);
    io.stdout.write(files.map((each) => renderConfig(each, paint, io.stdout.columns)).join('\n'));
  }
}

function renderConfig({ file, keys, passedOver }: ShownConfig, paint: Paint, columns: number): string {
  const rows = keys.map((each) => [each.key, each.from, valueWord(each)]);
  const notes = passedOver.map(({ message, next }) => `${message} -- ${next}\n`).join('');
  return `${paint('bold', file)}\n${renderTable(['KEY', 'FROM', 'VALUE'], rows, { columns, paint })}${notes}`;
}

function valueWord({ value }: ShownKey): string {
  return value === null ? 'not set' : printable(JSON.stringify(value));
}
