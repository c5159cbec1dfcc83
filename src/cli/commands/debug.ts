import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { type Command, Option } from 'commander';
import type { Paths } from '../../daemon/config/config.ts';
import type { Role } from '../../daemon/membership/types.ts';
import { failureJson, printJson } from '../answer.ts';
import { notPermitted } from '../client.ts';
import type { Gathered } from '../debug/gather.ts';
import { CliFailure, EXIT } from '../failure.ts';
import { configuredRoles } from '../instances.ts';
import type { Io } from '../io.ts';
import { addVerb, type CommonOptions } from '../verb.ts';
import { VERSION } from '../../daemon/version.ts';
import { examine } from './doctor.ts';
import { duration } from './wait.ts';

interface BundleOptions extends CommonOptions {
  readonly output?: string;
  readonly since: number;
}

const SINCE_MS = 86_400_000;
/** Limit of one file in the bundle; its end is kept, as it is the latest. */
const MAX_TEXT = 2 * 1024 * 1024;

export function addDebug(program: Command, io: Io): void {
  const debug = addVerb(program, 'debug', {
    summary: 'collect facts for a person who helps you',
    root: false,
  });
  addVerb(debug, 'bundle', {
    summary: 'write the state of this host to one file, without its secrets',
    description:
      'Writes a .tar.gz with doctor, status, members, plan, events, units, journals, configuration and ' +
      'network of this host. Every secret of this host is removed; names, addresses and times stay, so ' +
      'check it before you give it away. Only you can read it (0600), and no file is replaced.',
    examples: [
      'sudo bornemisza debug bundle',
      'sudo bornemisza debug bundle --since 2h --output /root/bundle.tar.gz',
    ],
    role: true,
    json: true,
    asRoot: 'it reads journals and units and creates the file as root; then it drops root',
  })
    .option('--output <file>', 'where to; default: bornemisza-HOST-TIME.tar.gz in this directory')
    .addOption(
      new Option('--since <duration>', 'how far back the journals go, e.g. 2h')
        .argParser(duration)
        .default(SINCE_MS, '1d'),
    )
    .action(async (options: BundleOptions) => {
      const { root = '' } = options;
      if (root === '' && io.host.uid !== 0) throw notPermitted('the bundle holds what only root may see');
      const file = resolve(options.output ?? defaultName(io));
      const handle = await create(file);
      try {
        const roles = await rolesHere(options);
        const { files, bytes } = await write(io, options, roles, handle);
        if (options.json === true) printJson(io, { file, bytes, files });
        else io.stdout.write(told(file, bytes, files.length));
      } finally {
        await handle.close();
      }
    });
}

function told(file: string, bytes: number, count: number): string {
  return (
    `${file}: ${count} files, ${Math.ceil(bytes / 1024)} kB\n` +
    `Secrets of this host are removed. Check it before you give it away: tar -tzf ${file}\n`
  );
}

function defaultName({ host }: Io): string {
  const name =
    host
      .hostname()
      .split('.')[0]
      ?.replaceAll(/[^\w-]/g, '') ?? 'host';
  return `bornemisza-${name}-${new Date().toISOString().slice(0, 19).replaceAll(':', '')}.tar.gz`;
}

/** Runs before root is dropped; it opens, follows and replaces nothing that exists. */
async function create(file: string): Promise<FileHandle> {
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
  return await open(file, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600).catch((error: unknown) => {
    const { code = '' } = error as NodeJS.ErrnoException;
    const why = code === 'EEXIST' ? 'exists already' : `cannot be created: ${code}`;
    throw new CliFailure(EXIT.failure, 'bundle-file', `${file} ${why}`, 'name another one: --output FILE', {
      cause: error,
    });
  });
}

/** A host without a role may still need help. */
async function rolesHere(options: BundleOptions): Promise<readonly Role[]> {
  return await configuredRoles(options).catch(() => []);
}

async function write(
  io: Io,
  options: BundleOptions,
  roles: readonly Role[],
  handle: FileHandle,
): Promise<{ readonly files: readonly string[]; readonly bytes: number }> {
  const { root = '' } = options;
  const [{ gatherAsRoot, gatherFromDaemon }, { scrubber, secretsOf }, { tarEnd, tarEntry }] =
    await Promise.all([
      import('../debug/gather.ts'),
      import('../debug/secrets.ts'),
      import('../debug/tar.ts'),
    ]);
  const { pathsFor } = await import('../../daemon/config/config.ts');
  const since = `-${Math.ceil(options.since / 1000)}s`;
  const gathered: Gathered[] = await gatherAsRoot(io.host, roles, since);
  // `examine` drops root after it has asked HAProxy and BIRD.
  gathered.push(await doctorOf(io, options));
  const secrets = new Set<string>();
  for (const role of roles) {
    const paths: Paths = pathsFor(role, root);
    for (const each of await secretsOf(paths)) secrets.add(each);
    gathered.push(await configOf(role, paths), ...(await gatherFromDaemon(role, root)));
  }
  const clean = scrubber(secrets);
  const mtimeS = Date.now() / 1000;
  const files = [{ path: 'README.txt', text: readme(roles) }, ...gathered];
  const entries = files.map(({ path, text }) =>
    tarEntry(path, Buffer.from(clean(text).slice(-MAX_TEXT)), mtimeS),
  );
  const packed = await promisify(gzip)(Buffer.concat([...entries, tarEnd()]));
  await handle.writeFile(packed);
  return { files: files.map(({ path }) => path), bytes: packed.byteLength };
}

async function doctorOf(io: Io, { role, root }: BundleOptions): Promise<Gathered> {
  const only = { ...(role === undefined ? {} : { role }), ...(root === undefined ? {} : { root }) };
  const checks = await examine(io, only);
  return { path: 'doctor.json', text: `${JSON.stringify({ checks }, null, 2)}\n` };
}

/** With its defaults; `config show` hides possible secrets. */
async function configOf(role: Role, paths: Paths): Promise<Gathered> {
  const { shownConfig } = await import('../../daemon/config/shown.ts');
  try {
    return {
      path: `${role}/config.json`,
      text: `${JSON.stringify(await shownConfig(role, paths), null, 2)}\n`,
    };
  } catch (error) {
    return { path: `${role}/config.json`, text: `${JSON.stringify(failureJson(error))}\n` };
  }
}

function readme(roles: readonly Role[]): string {
  return (
    `bornemisza ${VERSION}, debug bundle of ${new Date().toISOString()}; roles: ${roles.join(', ') || 'none'}\n` +
    'doctor.json first; then ROLE/status.json, ROLE/events.ndjson, units/status.txt, journal/.\n' +
    'Every secret of this host is replaced by (secret).\n'
  );
}
