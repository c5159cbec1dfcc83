import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** One package of which there is code in the bundle. */
export type Bundled = {
  readonly name: string;
  readonly version: string;
  /** As its package.json says, an SPDX expression. */
  readonly licence: string;
  readonly text: string;
};

type Manifest = {
  readonly name: string;
  readonly version: string;
  readonly license?: string;
  /** As npm had it until 2014. */
  readonly licenses?: readonly { readonly type: string }[];
  readonly author?: string | { readonly name: string };
  readonly contributors?: readonly (string | { readonly name: string })[];
};

/**
 * The packages that esbuild put into a bundle, sorted by name, each with the text of its licence.
 *
 * @param inputs paths from esbuild's metafile, relative to `root`
 * @param texts directory with the texts of packages that ship none: NAME.txt, `/` written as `+`
 * @throws Error naming every package without a licence or without its text: nothing is shipped without
 */
export async function bundledPackages(
  inputs: readonly string[],
  root: string,
  texts: string,
): Promise<Bundled[]> {
  const directories = new Set(inputs.flatMap((path) => packageDirectory(path) ?? []));
  const found: Bundled[] = [];
  const wrong: string[] = [];
  for (const directory of directories) {
    const manifest = JSON.parse(await readFile(join(root, directory, 'package.json'), 'utf8')) as Manifest;
    const { name, version } = manifest;
    const license = manifest.license ?? manifest.licenses?.map(({ type }) => type).join(' OR ') ?? '';
    const text =
      (await shippedText(join(root, directory))) ?? (await keptText(texts, name)) ?? textFor(manifest);
    if (license === '' || text === undefined)
      wrong.push(`${name} ${version} (licence: ${license || 'not stated'})`);
    else found.push({ name, version, licence: license, text });
  }
  if (wrong.length > 0) {
    throw new Error(`no licence text for ${wrong.join(', ')}; put it into ${texts}/NAME.txt`);
  }
  const key = ({ name, version }: Bundled): string => `${name}@${version}`;
  return [...new Map(found.map((each) => [key(each), each])).values()].sort((a, b) =>
    key(a) < key(b) ? -1 : 1,
  );
}

/** `node_modules/a/node_modules/@b/c/d.js` → `node_modules/a/node_modules/@b/c`; undefined for our own files. */
export function packageDirectory(path: string): string | undefined {
  return /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0];
}

/** What a header or a listing says: each distinct expression once, in an order of its own, joined by AND. */
export function licenceExpression(packages: readonly { readonly licence: string }[], own: string): string {
  const terms = packages.flatMap(({ licence }) => licence.replace(/^\((.*)\)$/, '$1').split(' AND '));
  const others = [...new Set(terms)].filter((term) => term !== own).sort();
  return [own, ...others.map((term) => (term.includes(' OR ') ? `(${term})` : term))].join(' AND ');
}

async function shippedText(directory: string): Promise<string | undefined> {
  const names = (await readdir(directory)).filter((name) =>
    /^(licen[cs]e|copying|notice)([-.].*)?$/i.test(name),
  );
  const texts = await Promise.all(names.sort().map((name) => readFile(join(directory, name), 'utf8')));
  return texts.length === 0 ? undefined : texts.join('\n\n');
}

async function keptText(texts: string, name: string): Promise<string | undefined> {
  return readFile(join(texts, `${name.replace('/', '+')}.txt`), 'utf8').catch(() => undefined);
}

/** Packages that name a well-known licence and leave its text out. */
function textFor({ license = '', author, contributors = [] }: Manifest): string | undefined {
  if (license === 'Apache-2.0' || license.split(' OR ').includes('Apache-2.0')) {
    return 'Used under the Apache License, Version 2.0; its text is the LICENSE of this package.';
  }
  const holders = [author, ...contributors]
    .map((each) => (typeof each === 'string' ? each : each?.name))
    .filter((each) => each !== undefined && each !== '');
  return license === 'MIT' ? mit(holders.length === 0 ? 'its authors' : holders.join(', ')) : undefined;
}

const mit = (holder: string): string => `MIT License

Copyright (c) ${holder}

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.`;

/** The whole as one file to be read. */
export function licenceBook(packages: readonly Bundled[]): string {
  const line = '='.repeat(100);
  const list = packages.map(({ name, version, licence }) => `  ${name} ${version}: ${licence}`);
  const chapters = packages.map(
    ({ name, version, licence, text }) =>
      `${line}\n${name} ${version} (${licence})\n${line}\n\n${text.replaceAll('\r', '').trim()}\n`,
  );
  return (
    'The programs (*.mjs) and the page contain code of these ' +
    `packages:\n\n${list.join('\n')}\n\n${chapters.join('\n')}`
  );
}
