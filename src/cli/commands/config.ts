import type { Command } from 'commander';
import type { Config } from '../../daemon/config/config.ts';
import type { Done } from '../../daemon/control/api.ts';
import type { Role } from '../../daemon/membership/types.ts';
import { failureJson, printDone, printJson } from '../answer.ts';
import { CliFailure, EXIT } from '../failure.ts';
import { configuredRoles, daemonOf } from '../instances.ts';
import type { Host, Io } from '../io.ts';
import { configOf, ROLES } from '../places.ts';
import { addVerb, type CommonOptions } from '../verb.ts';
import { addConfigShow } from './config-show.ts';

interface Checked {
  readonly config?: Config;
  readonly file: string;
  readonly role: Role;
  readonly valid: boolean;
  readonly services: readonly string[];
  /** Notes about files in services.d and haproxy.d that are ignored. */
  readonly passedOver: Config['passedOver'];
  readonly error?: { readonly code: string; readonly message: string; readonly next: string };
}

export function addConfig(program: Command, io: Io): void {
  const config = addVerb(program, 'config', { summary: 'the configuration of this node', root: false });
  addVerb(config, 'check', {
    summary: 'check the configuration files',
    description:
      'Reads /etc/bornemisza/ROLE.toml, services.d and haproxy.d as the daemon would, and names every problem ' +
      'with the nearest known key. HAProxy, if installed, checks the files of haproxy.d. Needs no daemon and ' +
      'changes nothing.',
    examples: [
      'bornemisza config check',
      'bornemisza config check --role app && sudo systemctl reload bornemisza@app',
    ],
    role: true,
    json: true,
  }).action(async (options: CommonOptions) => {
    const roles = await configuredRoles(options);
    const results = await apart(
      await Promise.all(roles.map((role) => check(role, options.root ?? '', io.host))),
    );
    if (options.json === true) printJson(io, { files: results.map(({ config: _config, ...each }) => each) });
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
  addConfigShow(config, io);
  addVerb(config, 'migrate', {
    summary: 'convert the configuration files to the format of this version',
    description:
      'Rewrites /etc/bornemisza/ROLE.toml if this version needs another format. The previous file stays ' +
      'beside it as ROLE.toml.format-N, and is restored after a downgrade. The package runs this at each ' +
      'upgrade; a second run does nothing. Your comments stay.',
    examples: ['sudo bornemisza config migrate'],
    json: true,
    asRoot: 'it writes /etc/bornemisza, which only root may write, and reads nothing else',
  }).action(async (options: CommonOptions) => {
    await migrate(io, options);
  });
}

async function migrate(io: Io, { root = '', json = false }: CommonOptions): Promise<void> {
  const [{ migrateConfig }, { pathsFor }] = await Promise.all([
    import('../setup/migrate.ts'),
    import('../../daemon/config/config.ts'),
  ]);
  const files = [];
  for (const role of ROLES) {
    const done = await migrateConfig(role, pathsFor(role, root));
    if (done !== undefined) files.push(done);
  }
  if (json) {
    printJson(io, { files });
    return;
  }
  for (const { file, from, to, backup, changes } of files) {
    io.stdout.write(
      backup === ''
        ? `${file} has format ${to}: nothing to do\n`
        : `${file}: format ${from} → ${to}, ${changes.join(', ')}; the previous file is ${backup}\n`,
    );
  }
}

/** A daemon that reads such a file works without it, so the rest is valid. */
const SNIPPET_REFUSED = 'haproxy-snippet-refused';

async function check(role: Role, root: string, host: Host): Promise<Checked> {
  // Loaded only here: the schema library costs as much time as the rest of a command.
  const [{ loadConfig, pathsFor }, { snippetFaults }] = await Promise.all([
    import('../../daemon/config/config.ts'),
    import('../snippets.ts'),
  ]);
  const file = configOf(role, root);
  try {
    const read = await loadConfig(role, pathsFor(role, root));
    const services = read.services.map((each) => each.name);
    const isFault = ({ code }: { code: string }): boolean => code === SNIPPET_REFUSED;
    const faults = [...read.passedOver.filter(isFault), ...(await snippetFaults(read, host))];
    const passedOver = read.passedOver.filter((each) => !isFault(each));
    const [first] = faults;
    const error = first && { ...first, message: faults.map(({ message }) => message).join('\n') };
    return { config: read, file, role, valid: true, services, passedOver, ...(error && { error }) };
  } catch (error) {
    return { file, role, valid: false, services: [], passedOver: [], ...failureJson(error) };
  }
}

export function addReload(program: Command, io: Io): void {
  addVerb(program, 'reload', {
    summary: 'make the daemon read its configuration again',
    description:
      'Makes the daemon read its configuration, services.d and haproxy.d again, as `systemctl reload ' +
      'bornemisza@ROLE` does. If the daemon refuses them, this command and `bornemisza status` say why, and ' +
      'the previous configuration stays in use.',
    examples: ['bornemisza config check && bornemisza reload', 'bornemisza reload --role app'],
    role: true,
    json: true,
  }).action(async (options: CommonOptions) => {
    printDone(io, options, await (await daemonOf(options)).post<Done>('/v1/reload', {}));
  });
}

/** The files of both roles of one host must not conflict; each alone can be valid. */
async function apart(all: readonly Checked[]): Promise<Checked[]> {
  const { portClashes } = await import('../../daemon/config/config.ts');
  const clashes = portClashes(all.flatMap(({ config }) => config ?? []));
  if (clashes.length === 0) return [...all];
  const error = {
    code: 'config-invalid',
    message: clashes.join('; '),
    next: 'change one of the two, then run `bornemisza config check`',
  };
  return all.map((each) => (each.valid ? { ...each, valid: false, error } : each));
}

function sentence({ file, services, passedOver }: Checked): string {
  const notes = passedOver.map(({ message, next }) => `${message} -- ${next}\n`).join('');
  const noun = services.length === 1 ? 'service' : 'services';
  const found = services.length === 0 ? '' : `, with ${noun} ${services.join(', ')}`;
  return `${file} is valid${found}.\n${notes}`;
}
