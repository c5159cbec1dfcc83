import { constants } from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Paths } from '../../daemon/config/config.ts';

/** Larger files hold no secret of ours: the roster has certificates, the trail and the snapshot have none. */
const MAX_FILE_BYTES = 1024 * 1024;
const MAX_FILES = 2000;
/** A shorter value would match inside other words. Our own secrets have at least 24 characters. */
const LEAST = 8;
const GONE = '(secret)';

/** Keys of our JSON files whose values are public and would match everywhere. */
const PUBLIC = new Set([
  'user',
  'kind',
  'id',
  'rank',
  'version',
  'clusterUuid',
  'without',
  'role',
  'state',
  'names',
]);

/** Values in files of secrets that are public: names of algorithms, of keys in them, of our users. */
const PLAIN = /^(key|secret|algorithm|password|token|hmac-[\w-]+|certificate|private|public|bornemisza)$/i;

/**
 * Names of nodes, PeerIds, addresses and dates, under whatever key: public, and without them a bundle says nothing. No
 * secret of ours has such a form.
 */
const PUBLIC_FORM =
  /^([a-z0-9-]{1,63}\/(app|db)|12D3KooW[1-9A-HJ-NP-Za-km-z]{44}|\d{1,3}(\.\d{1,3}){3}(:\d+)?|\d{4}-\d\d-.*)$/;

/**
 * Every secret of a role instance on this host. Files that this user may not read are skipped: only the daemon or root
 * can read them, so none of their content gets into the bundle.
 */
export async function secretsOf(paths: Paths): Promise<ReadonlySet<string>> {
  const found = new Set<string>();
  const add = (words: Iterable<string>): void => {
    for (const word of words) if (word.length >= LEAST) found.add(word);
  };
  for (const folder of [paths.state, paths.accountsFiles, paths.haproxyFiles])
    for (const file of await filesUnder(folder)) add(kept(await textOf(file)));
  for (const name of ['cookie', 'key.pem', 'bornemisza.ini', 'couchdb.env'])
    add(kept(await textOf(join(paths.couchdbFiles, name))));
  add(words(await textOf(join(paths.couchdbFiles, 'cookie'))));
  const { files, values } = namedIn(await textOf(paths.config));
  add(values);
  for (const file of files) {
    const text = await textOf(file);
    add(text.includes('-----BEGIN') ? kept(text) : words(text));
  }
  return found;
}

/**
 * Reads a configuration as text, since a bundle is needed most when the file is invalid and no parser reads it.
 *
 * @returns the files of secrets that it names, and its own secrets: the URL of a webhook, arguments of a command
 */
export function namedIn(toml: string): {
  readonly files: readonly string[];
  readonly values: readonly string[];
} {
  const all = [...toml.matchAll(/^\s*(?:[\w.]+\.)?(\w+)\s*=\s*(\[[^\]]*\]|.*)$/gm)].map(
    ([, key = '', value = '']) => ({
      key,
      strings: [...value.matchAll(/"((?:[^"\\]|\\.)*)"|'([^']*)'/g)].map(
        ([, basic, literal]) => basic ?? literal ?? '',
      ),
    }),
  );
  const of = (wanted: RegExp): string[] =>
    all.filter(({ key }) => wanted.test(key)).flatMap(({ strings }) => strings);
  const ways = of(/^webhook_url$/).flatMap((url) => /^\w+:\/\/[^/]*\/(.+)$/.exec(url)?.[1] ?? []);
  return {
    files: of(/(_file|^certificate)$/),
    values: [
      ...ways,
      ...all.filter(({ key }) => key === 'command').flatMap(({ strings }) => strings.slice(1).flatMap(parts)),
      ...of(/(password|passphrase|secret|token|credential)s?$/),
    ],
  };
}

/** An argument such as `--key=VALUE`, and its value. */
const parts = (argument: string): string[] => [argument, argument.slice(argument.indexOf('=') + 1)];

/** Text without any secret, plain or encoded: in URLs, in `Authorization`, in JSON. */
export function scrubber(secrets: ReadonlySet<string>): (text: string) => string {
  const forms = new Set<string>();
  for (const secret of secrets) {
    for (const form of [secret, encodeURIComponent(secret), JSON.stringify(secret).slice(1, -1)])
      forms.add(form);
  }
  const longestFirst = [...forms].sort((a, b) => b.length - a.length);
  return (text) => {
    let clean = text;
    for (const [pattern, by] of FORMS) clean = clean.replaceAll(pattern, by);
    for (const form of longestFirst) clean = clean.replaceAll(form, GONE);
    return clean;
  };
}

/** Secrets that are recognised by their form. */
const FORMS: readonly (readonly [RegExp, string])[] = [
  [/-----BEGIN ([A-Z ]*)PRIVATE KEY-----[\s\S]*?(-----END \1PRIVATE KEY-----|$)/g, `${GONE} private key`],
  [/-----BEGIN BORNEMISZA RECOVERY BUNDLE-----[\s\S]*?(-----END [A-Z ]+-----|$)/g, `${GONE} recovery bundle`],
  [/\bbm\d\.[\w.~+/=-]{20,}/g, `${GONE} token`],
  [/(\w:\/\/[^\s/:@"]*):[^\s/@"]+@/g, `$1:${GONE}@`],
  [/\b(authorization["']?\s*[:=]\s*["']?\w+)\s+[\w.~+/=-]{8,}/gi, `$1 ${GONE}`],
  [/\b(AuthSession|bm_session|__Host-[\w-]+)=[^\s;"]+/g, `$1=${GONE}`],
];

function words(text: string): string[] {
  return text.split(/[\s"';{}=]+/).filter((word) => !PLAIN.test(word));
}

/** Keys in PEM, and of JSON what is not known to be public. */
function kept(text: string): string[] {
  const keys = [...text.matchAll(/BEGIN [A-Z ]*PRIVATE KEY-----([\s\S]*?)-----END/g)].flatMap(
    ([, body = '']) => body.split(/\\n|\s+/).filter((line) => line.length >= LEAST),
  );
  const ini = [...text.matchAll(/^\s*(?:secret|admin|password|cookie)\s*=\s*(\S+)\s*$/gim)].map(
    ([, value = '']) => value,
  );
  return [...keys, ...ini, ...(text.trimStart().startsWith('{') ? leavesOf(text) : [])];
}

function leavesOf(text: string): string[] {
  const found: string[] = [];
  const walk = (value: unknown, key: string): void => {
    if (typeof value === 'string') {
      if (value.includes('PRIVATE KEY')) found.push(...kept(value));
      else if (!PUBLIC.has(key) && !PUBLIC_FORM.test(value) && !value.includes('CERTIFICATE'))
        found.push(value);
    } else if (Array.isArray(value)) {
      for (const each of value) walk(each, key);
    } else if (typeof value === 'object' && value !== null) {
      const { user, password } = value as Record<string, unknown>;
      if (typeof user === 'string' && typeof password === 'string')
        found.push(Buffer.from(`${user}:${password}`).toString('base64'));
      for (const [name, each] of Object.entries(value)) walk(each, name);
    }
  };
  try {
    walk(JSON.parse(text), '');
  } catch {
    // Cut in half, so it is no longer JSON.
  }
  return found;
}

/** Public names of the cluster, which appear in status and members, and a page for everybody. */
const SHARED = /^(cluster|roster|local|unfinished)\.json$|^audit\.jsonl|\.snapshot$|^haproxy\.cfg|^page-/;

async function filesUnder(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  return entries
    .filter((each) => each.isFile() && !SHARED.test(each.name))
    .slice(0, MAX_FILES)
    .map((each) => join(each.parentPath, each.name));
}

/** '' where it cannot be read, or is no file. */
async function textOf(path: string): Promise<string> {
  // A FIFO would block the command until somebody writes into it.
  const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch(() => undefined);
  if (handle === undefined) return '';
  try {
    const facts = await handle.stat();
    if (!facts.isFile() || facts.size > MAX_FILE_BYTES) return '';
    return (await handle.readFile()).toString('utf8');
  } finally {
    await handle.close();
  }
}
