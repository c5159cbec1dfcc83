import type { Command } from 'commander';
import type { Role } from '../../daemon/membership/types.ts';
import { printJson } from '../answer.ts';
import { CliFailure, EXIT, tell } from '../failure.ts';
import { instances, whyNone } from '../instances.ts';
import type { Io } from '../io.ts';
import { configOf } from '../places.ts';
import { addVerb, type CommonOptions } from '../verb.ts';

interface Checked {
  readonly file: string;
  readonly role: Role;
  readonly valid: boolean;
  readonly services: readonly string[];
  readonly error?: { readonly code: string; readonly message: string; readonly next: string };
}

export function addConfig(program: Command, io: Io): void {
  const config = addVerb(program, 'config', { summary: 'the configuration of this node', root: false });
  addVerb(config, 'check', {
    summary: 'check the configuration files',
    description:
      'Reads /etc/bornemisza/ROLE.toml and services.d as the daemon would, and names every problem with the nearest known key. Needs no daemon and changes nothing.',
    examples: [
      'bornemisza config check',
      'bornemisza config check --role app && sudo systemctl reload bornemisza@app',
    ],
    role: true,
    json: true,
  }).action(async (options: CommonOptions) => {
    const all = await instances(options.root);
    const roles =
      options.role === undefined
        ? all.filter((each) => each.configured !== 'no').map((each) => each.role)
        : [options.role];
    if (roles.length === 0) throw whyNone(all);
    const results = await Promise.all(roles.map((role) => check(role, options.root ?? '')));
    if (options.json === true) printJson(io, { files: results });
    else
      io.stdout.write(
        results
          .filter((each) => each.valid)
          .map(sentence)
          .join(''),
      );
    const bad = results.find((each) => each.error !== undefined)?.error;
    if (bad !== undefined)
      throw new CliFailure(
        bad.code === 'config-unreadable' ? EXIT.permission : EXIT.failure,
        bad.code,
        bad.message,
        bad.next,
      );
  });
}

async function check(role: Role, root: string): Promise<Checked> {
  // Loaded here alone: the schema library costs as much as all the rest of a command.
  const { loadConfig, pathsFor } = await import('../../daemon/config.ts');
  const file = configOf(role, root);
  try {
    const { services } = await loadConfig(role, pathsFor(role, root));
    return { file, role, valid: true, services: services.map((each) => each.name) };
  } catch (error) {
    const { code, message, next } = tell(error);
    return { file, role, valid: false, services: [], error: { code, message, next } };
  }
}

function sentence({ file, services }: Checked): string {
  return `${file} is valid${services.length === 0 ? '' : `, with ${services.length === 1 ? 'service' : 'services'} ${services.join(', ')}`}.\n`;
}
