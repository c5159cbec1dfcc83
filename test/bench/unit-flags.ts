import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

const UNITS = join(import.meta.dirname, '../../systemd/system');

/** What Node.js is started with in production: the words of a unit's ExecStart between it and the bundle. */
export async function nodeFlags(name = 'bornemisza@.service'): Promise<readonly string[]> {
  const unit = join(UNITS, name);
  const flags = /^ExecStart=\S+\/node (.*?) ?\S+\.mjs /m.exec(await readFile(unit, 'utf8'))?.[1];
  if (flags === undefined) throw new Error(`${unit} does not start Node.js with a bundle`);
  return flags.split(' ').filter((flag) => flag !== '');
}

/** The environment that a unit sets. */
export async function unitEnvironment(name: string): Promise<Readonly<Record<string, string>>> {
  const text = await readFile(join(UNITS, name), 'utf8');
  const words = [...text.matchAll(/^Environment=(.*)$/gm)].flatMap(([, line = '']) => line.split(' '));
  return Object.fromEntries(words.map((word) => word.split('=', 2) as [string, string]));
}
