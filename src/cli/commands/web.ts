import type { Command } from 'commander';
import { cp, mkdtemp, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { printJson } from '../answer.ts';
import { CliFailure, EXIT } from '../failure.ts';
import type { Io } from '../io.ts';
import { addVerb, type CommonOptions } from '../verb.ts';

export function addWeb(program: Command, io: Io): void {
  const web = addVerb(program, 'web', { summary: 'the page of the app tier', root: false });
  addVerb(web, 'new', {
    summary: 'copy the sources of the page, so that you can change it',
    description:
      'Copies the sources of the page, its build script and a build to a new directory of yours. The site ' +
      'does not change until web_root of accounts.toml names your build.',
    examples: ['bornemisza web new ~/page', 'bornemisza web new ~/page --json'],
    json: true,
    asRoot: 'it refuses root: the files that npm and you put there must not belong to root',
  })
    .argument('<dir>', 'new or empty directory')
    .action(async (dir: string, options: CommonOptions) => {
      const { root = '' } = options;
      if (root === '' && io.host.uid === 0)
        throw new CliFailure(
          EXIT.usage,
          'web-new-root',
          'the page cannot be copied as root: npm would run programs of packages as root there',
          'run it as your own user, without sudo',
        );
      const made = await copyPage(`${root}/usr/share/bornemisza`, resolve(dir));
      if (options.json === true) printJson(io, { directory: made });
      else
        io.stdout.write(
          `${made} has the page, its sources and a build in dist/web\n  next: ${nextSteps(made)}\n`,
        );
    });
}

const nextSteps = (directory: string): string =>
  `cd ${directory} && npm install && npm run build; README.md there says how to serve it`;

/** Whole or not at all: a directory with that name holds a complete copy. */
async function copyPage(shared: string, directory: string): Promise<string> {
  await mustBeFree(directory);
  let half: string | undefined;
  try {
    half = await mkdtemp(join(dirname(directory), `.${basename(directory)}-`));
    await cp(join(shared, 'page'), half, { recursive: true });
    await cp(join(shared, 'web'), join(half, 'dist/web'), { recursive: true });
    await rename(half, directory);
    return directory;
  } catch (error) {
    if (half !== undefined) await rm(half, { recursive: true, force: true });
    throw refusal(error, shared, directory);
  }
}

async function mustBeFree(directory: string): Promise<void> {
  const facts = await stat(directory).catch(() => undefined);
  const isFree = facts === undefined || (facts.isDirectory() && (await readdir(directory)).length === 0);
  if (isFree) return;
  throw new CliFailure(
    EXIT.usage,
    'web-new-not-empty',
    `${directory} exists and is not empty; nothing was written`,
    'name a new directory',
  );
}

function refusal(error: unknown, shared: string, directory: string): CliFailure {
  const { code, message, path = '' } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT' && path.startsWith(shared))
    return new CliFailure(
      EXIT.failure,
      'web-new-missing',
      `the page is not in ${shared}`,
      'install the package again: sudo dnf reinstall bornemisza-node',
      { cause: error },
    );
  return new CliFailure(
    code === 'EACCES' || code === 'EPERM' ? EXIT.permission : EXIT.failure,
    'web-new-failed',
    `${directory} cannot be written: ${code ?? message}; nothing was kept there`,
    'name a directory that you can create, e.g. ~/page',
    { cause: error },
  );
}
