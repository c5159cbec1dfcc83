import { readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { parseSync } from 'oxc-parser';

/**
 * Which paths root and process 1 touch on a host, read from what the package ships, and which of them lie below a
 * directory that another user can write. There that user can put a link, a FIFO or another file at any moment.
 */

/** Something that root does with a path. */
export interface Touch {
  /** The file that says so, with the line's words. */
  readonly by: string;
  readonly path: string;
}

interface Directory {
  readonly owner: string;
  /** Permission bits; default 0755. */
  readonly mode: number;
  readonly group: string;
}

/**
 * What other packages make. Apache's gives CouchDB's user its own program directory; everybody may write the last two.
 */
const OTHERS: readonly (readonly [path: string, directory: Directory])[] = [
  ['/var/lib/couchdb', { owner: 'couchdb', mode: 0o2770, group: 'couchdb' }],
  ['/opt/couchdb', { owner: 'couchdb', mode: 0o755, group: 'couchdb' }],
  ['/run/bird', { owner: 'bird', mode: 0o755, group: 'bird' }],
  ['/tmp', { owner: 'root', mode: 0o1777, group: 'root' }],
  ['/var/tmp', { owner: 'root', mode: 0o1777, group: 'root' }],
];
const ROLES = ['app', 'db'];
/** Whose service of another package runs as whom: our drop-ins stand in their units. Unknown is root. */
const USERS_OF_OTHERS: Readonly<Record<string, string>> = { 'couchdb.service': 'couchdb' };
/** Read, mounted, opened or changed by process 1 itself, whoever the service's user is. */
const BY_PROCESS_1 = new RegExp(
  `^(${[
    /EnvironmentFile|LoadCredential|Standard(Input|Output|Error)|PIDFile|Root(Directory|Image)/,
    /(Bind|BindReadOnly|ReadWrite|ReadOnly|Inaccessible|Exec|NoExec)Paths/,
    /WorkingDirectory|TemporaryFileSystem|Listen\w+/,
  ]
    .map(({ source }) => source)
    .join('|')})$`,
);
/** `+` and `!` keep root's rights whatever User= says. */
const KEEPS_ROOT = /^[-@:]*[+!]/;

interface Unit {
  readonly name: string;
  readonly lines: readonly (readonly [key: string, value: string])[];
}

function filesUnder(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8', withFileTypes: true })
    .filter((each) => each.isFile())
    .map((each) => join(each.parentPath, each.name))
    .sort();
}

/** Each unit with its drop-ins, once for each role where it is a template. */
export function unitsIn(folder: string): Unit[] {
  const read = new Map<string, [string, string][]>();
  for (const file of filesUnder(folder)) {
    const within = basename(dirname(file));
    const name = within.endsWith('.d') ? within.slice(0, -2) : basename(file);
    const lines = readFileSync(file, 'utf8')
      .replaceAll(/\\\n/g, ' ')
      .split('\n')
      .flatMap((line) => {
        const [, key, value] = /^(\w+)=(.*)$/.exec(line) ?? [];
        return key === undefined ? [] : [[key, value ?? ''] as [string, string]];
      });
    read.set(name, [...(read.get(name) ?? []), ...lines]);
  }
  return [...read].flatMap(([name, lines]) => {
    const roles = name.includes('@.') ? ROLES : [/@(\w+)\./.exec(name)?.[1] ?? ''];
    return roles.map((role) => ({
      name: name.replace('@.', `@${role}.`),
      lines: lines.map(([key, value]) => [key, value.replaceAll('%i', role)] as const),
    }));
  });
}

const valueOf = ({ lines }: Unit, wanted: string): string | undefined =>
  lines.findLast(([key]) => key === wanted)?.[1];

const pathsIn = (text: string): string[] =>
  [...text.matchAll(/(?<![\w.%/])\/[\w.@$*-]+(?:\/[\w.@$*-]+)*/g)].map(([path]) => path);

/** What units make and whose it is, beside what tmpfiles and other packages make. */
export function directoriesOf(units: readonly Unit[], tmpfiles: string): ReadonlyMap<string, Directory> {
  const found = new Map<string, Directory>(OTHERS);
  for (const unit of units) {
    const owner = valueOf(unit, 'User') ?? 'root';
    for (const [key, base] of [
      ['StateDirectory', '/var/lib'],
      ['RuntimeDirectory', '/run'],
      ['CacheDirectory', '/var/cache'],
      ['LogsDirectory', '/var/log'],
    ] as const)
      for (const name of (valueOf(unit, key) ?? '').split(/\s+/).filter((each) => each !== ''))
        found.set(`${base}/${name}`, {
          owner,
          mode: Number.parseInt(valueOf(unit, `${key}Mode`) ?? '0755', 8),
          group: valueOf(unit, 'Group') ?? owner,
        });
  }
  for (const [type, path, mode, owner, group] of tmpfilesLines(tmpfiles))
    if (/^[dDvqQe]/.test(type)) found.set(path, { owner, mode: Number.parseInt(mode, 8), group });
  return found;
}

function tmpfilesLines(
  text: string,
): [type: string, path: string, mode: string, owner: string, group: string][] {
  return text
    .split('\n')
    .filter((line) => /^[a-zA-Z]/.test(line))
    .map((line) => {
      const [type = '', path = '', mode = '0755', owner = 'root', group = 'root'] = line.split(/\s+/);
      return [type, path, mode, owner, group];
    });
}

/**
 * What root or process 1 touches because of a unit. Conditions and path units look whether a name is there, and open
 * nothing.
 */
export function touchesOfUnit(unit: Unit): Touch[] {
  const user = valueOf(unit, 'User') ?? USERS_OF_OTHERS[unit.name];
  const isRoot = (user === undefined || user === 'root') && valueOf(unit, 'DynamicUser') !== 'yes';
  return unit.lines.flatMap(([key, value]) => {
    const ran = key.startsWith('Exec') && !BY_PROCESS_1.test(key);
    const by = `${unit.name}: ${key}=${value}`;
    if (ran && !isRoot && !KEEPS_ROOT.test(value))
      return pathsIn(programOf(value)).map((path) => ({ by, path }));
    if (ran || BY_PROCESS_1.test(key)) return pathsIn(value).map((path) => ({ by, path }));
    return [];
  });
}

/** Process 1 looks the program up before the service is its user. */
const programOf = (command: string): string => command.replace(/^[-@:+!]*/, '').split(/\s+/)[0] ?? '';

export function touchesOfTmpfiles(text: string): Touch[] {
  return tmpfilesLines(text).map((line) => ({ by: `tmpfiles: ${line.join(' ')}`, path: line[1] }));
}

/** %pre, %post, %preun, %postun, %posttrans: dnf runs them as root. */
export function touchesOfSpec(text: string): Touch[] {
  const sections = text.split(
    /^(?=%(?:prep|build|install|files|changelog|description|pre|post|preun|postun|pretrans|posttrans)\b)/m,
  );
  return sections
    .filter((each) => /^%(pre|post|preun|postun|pretrans|posttrans)\b/.test(each))
    .flatMap((section) =>
      section
        .split('\n')
        .filter((line) => !line.startsWith('#'))
        .flatMap((line) => pathsIn(line).map((path) => ({ by: `spec: ${line.trim()}`, path }))),
    );
}

/** A script that a unit of root runs. */
export function touchesOfScript(name: string, text: string): Touch[] {
  return text
    .split('\n')
    .filter((line) => !line.startsWith('#'))
    .flatMap((line) => pathsIn(line).map((path) => ({ by: `${name}: ${line.trim()}`, path })));
}

/** @returns why root may not touch it, or undefined */
export function refusal(
  { by, path }: Touch,
  directories: ReadonlyMap<string, Directory>,
): string | undefined {
  // A variable may be any role or name.
  const known = [...directories].map(([name, directory]) => [name.split('/'), directory] as const);
  const parts = path.split('/');
  for (let length = 2; length < parts.length; length += 1) {
    const match = known.find(
      ([name]) =>
        name.length === length &&
        name.every((part, index) => part === parts[index] || /[$*]/.test(parts[index] ?? '')),
    );
    if (match === undefined) continue;
    const [name, { owner, mode, group }] = match;
    const who =
      owner !== 'root'
        ? owner
        : (mode & 0o002) !== 0
          ? 'everybody'
          : (mode & 0o020) !== 0
            ? `group ${group}`
            : 'root';
    if (who !== 'root' && who !== 'group root')
      return (
        `${by} has root touch ${path}, and ${who} can write ${name.join('/')}: do it as that user, or keep ` +
        'it in a directory of root’s'
      );
  }
  return undefined;
}

/** Each value that a file of the command takes from the rooms that work in the daemon's directories. */
export function stateImports(file: string, text: string): string[] {
  const { module } = parseSync(file, text);
  const dynamic = module.dynamicImports.map((each) =>
    text.slice(each.moduleRequest.start, each.moduleRequest.end).replaceAll(/^['"`]|['"`]$/g, ''),
  );
  const fixed = module.staticImports
    .filter((each) => each.entries.some((entry) => !entry.isType))
    .map((each) => each.moduleRequest.value);
  return [...fixed, ...dynamic].filter(
    (each) => /daemon\/identity\//.test(each) && !/\/(tokens|token-life|errors|names)\.ts$/.test(each),
  );
}
