import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

const unit = join(import.meta.dirname, '../../systemd/system/bornemisza@.service');

/** What Node.js is started with in production: the words of the unit's ExecStart between it and the bundle. */
export async function nodeFlags(): Promise<readonly string[]> {
  const flags = /^ExecStart=\S+\/node (.*?) ?\S+\.mjs /m.exec(await readFile(unit, 'utf8'))?.[1];
  if (flags === undefined) throw new Error(`${unit} does not start Node.js with a bundle`);
  return flags.split(' ').filter((flag) => flag !== '');
}
