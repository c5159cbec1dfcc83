/**
 * The founder's own parts of HAProxy's configuration: read, judged, and embedded between marks in our file, since
 * HAProxy can read no other one (SELinux). Pure.
 */
import type { Finding } from '../contract.ts';
import type { Snippets } from './desired.ts';
import { type Bind, bindsOf, headingRefusal, refusalOf, SECTIONS, wordsOf } from './snippet-lines.ts';

/** Why a snippet is left out. */
export interface Complaint {
  /** In its file; undefined: it is about the whole file. */
  readonly line?: number | undefined;
  readonly why: string;
}

/** A snippet in the form in which it is embedded. */
export interface UsedSnippet {
  readonly file: string;
  readonly name: string;
  /** Other text, or another reading of the files, is another key: what HAProxy refused is tried again. */
  readonly key: string;
  /** Nothing else can fail at a start that passed the check. */
  readonly binds: readonly Bind[];
  /** Lines, with their marks, for our own edge, and for the end of the file. */
  readonly edge: readonly string[];
  readonly sections: readonly string[];
}

interface Choice {
  readonly used: readonly UsedSnippet[];
  readonly alarms: readonly Finding[];
}

/** @param refused what HAProxy refused, by the key of the snippet */
export function chooseSnippets(
  { files, readMs, ports }: Snippets,
  refused: ReadonlyMap<string, Complaint> = new Map(),
): Choice {
  const used: UsedSnippet[] = [];
  const alarms: Finding[] = [];
  const taken: Taken = { ports, binds: [], acls: new Set() };
  for (const { file, text } of files) {
    const key = `${readMs} ${file}\n${text}`;
    const parsed = refused.get(key) ?? parse(file, text, taken);
    if ('why' in parsed) {
      alarms.push(alarmOf(file, parsed));
      continue;
    }
    taken.binds.push(...parsed.binds);
    for (const acl of parsed.acls) taken.acls.add(acl);
    const { edge, sections, binds } = parsed;
    used.push({ file, name: nameOf(file), key, binds, edge, sections });
  }
  return { used, alarms };
}

export function alarmOf(file: string, { line, why }: Complaint): Finding {
  return {
    code: 'haproxy-snippet-refused',
    message: `${file}${line === undefined ? '' : `:${line}`} is left out of HAProxy’s configuration: ${why}`,
    next: 'correct it, then `bornemisza config check` and `bornemisza reload`; everything else is in use',
  };
}

const nameOf = (file: string): string => file.slice(file.lastIndexOf('/') + 1);

/** What no further snippet may have. */
interface Taken {
  /** Ports of ours. The kernel would share the connections between two listeners of HAProxy on one port. */
  readonly ports: readonly number[];
  readonly binds: Bind[];
  /** Named in the edge: HAProxy joins the conditions of one name. */
  readonly acls: Set<string>;
}

interface Parsed {
  readonly edge: readonly string[];
  readonly sections: readonly string[];
  readonly binds: readonly Bind[];
  readonly acls: ReadonlySet<string>;
}

function parse(file: string, text: string, taken: Taken): Parsed | Complaint {
  const name = nameOf(file);
  if (!/^[A-Za-z0-9][\w.-]{0,60}\.cfg$/.test(name))
    return { why: 'its name must have only letters, digits and . _ -, 64 at most' };
  const lines = text.replace(/^\uFEFF/, '').split(/\r?\n/);
  const acls = new Set<string>();
  const binds: Bind[] = [];
  const blocks: { edge: boolean; line: number; lines: string[] }[] = [];
  let section = { kind: '', name: '' };
  for (const [index, line] of lines.entries()) {
    const at = index + 1;
    // oxlint-disable-next-line no-control-regex
    if (/[\0-\x08\x0a-\x1f\x7f]/.test(line)) return { line: at, why: 'it has a control character' };
    const words = wordsOf(line);
    const [first = '', second = ''] = words;
    const heading = SECTIONS.has(first) && line.trimStart().startsWith(first);
    if (heading) section = { kind: first, name: second };
    const edge = section.kind === 'frontend' && section.name === 'edge';
    const why = refusal(words, { line, heading, section: edge ? 'edge' : section.kind });
    if (why !== undefined) return { line: at, why };
    if (first === 'bind') {
      const wanted = bindsOf(words, { section: section.name, line: at });
      if (typeof wanted === 'string') return { line: at, why: wanted };
      const clash = clashOf(wanted, taken.ports, [...taken.binds, ...binds]);
      if (clash !== undefined) return { line: at, why: clash };
      binds.push(...wanted);
    }
    if (edge && first === 'acl') acls.add(second);
    if (edge && first === 'acl' && taken.acls.has(second))
      return {
        line: at,
        why: `another file has an acl "${second}" in the edge, and HAProxy would join them`,
      };
    if (blocks.at(-1)?.edge !== edge) blocks.push({ edge, line: at, lines: [] });
    // Comments are left out: one could look like a mark of ours.
    const shown = words.length === 0 || (edge && heading) ? '#' : line.trim();
    blocks.at(-1)?.lines.push(heading || edge ? shown : `  ${shown}`);
  }
  const of = (edge: boolean): string[] =>
    blocks
      .filter((block) => block.edge === edge && block.lines.some((line) => line.trim() !== '#'))
      .flatMap((block) => [`# snippet ${name} line ${block.line}`, ...block.lines, END]);
  return { edge: of(true), sections: of(false), binds, acls };
}

function refusal(
  words: readonly string[],
  { line, heading, section }: { readonly line: string; readonly heading: boolean; readonly section: string },
): string | undefined {
  if (words.length === 0) return undefined;
  return heading ? headingRefusal(words) : refusalOf(line, words, section);
}

function clashOf(
  wanted: readonly Bind[],
  ports: readonly number[],
  binds: readonly Bind[],
): string | undefined {
  const port = ports.find((own) => wanted.some(({ from, to }) => from <= own && own <= to));
  if (port !== undefined) return `port ${port} is one of ours: choose another one`;
  const twice = wanted.find((one) => binds.some((other) => meets(one, other)));
  return twice && `port ${twice.from} is there twice: HAProxy would share the connections between the two`;
}

function meets(one: Bind, other: Bind): boolean {
  const same = one.address === other.address || one.address === '*' || other.address === '*';
  return same && one.from <= other.to && other.from <= one.to;
}

const BEGIN = /^\s*# snippet (\S+) line (\d+)$/;
const END = '# end of snippet';

/** A part of a configuration of ours that is a snippet's. Lines count from 1, without the marks. */
interface Embedded {
  readonly name: string;
  readonly from: number;
  readonly to: number;
  /** Number of its first line in the snippet's own file. */
  readonly first: number;
}

function embeddedIn(lines: readonly string[]): Embedded[] {
  const found: Embedded[] = [];
  let begun: Omit<Embedded, 'to'> | undefined;
  for (const [index, line] of lines.entries()) {
    const [, name, first] = BEGIN.exec(line) ?? [];
    if (begun === undefined && name !== undefined) begun = { name, from: index + 2, first: Number(first) };
    if (begun === undefined || line.trim() !== END) continue;
    found.push({ ...begun, to: index });
    begun = undefined;
  }
  return found;
}

/** A configuration of ours, with these snippets and no other. */
export function withSnippets(config: string, kept: ReadonlySet<string> = new Set()): string {
  const lines = config.split('\n');
  const out = embeddedIn(lines).filter(({ name }) => !kept.has(name));
  return lines.filter((_, at) => !out.some(({ from, to }) => from - 1 <= at + 1 && at <= to)).join('\n');
}

/** The lines of each snippet in a configuration of ours, by its name. */
export function snippetsIn(config: string): Map<string, string> {
  const lines = config.split('\n');
  const texts = new Map<string, string>();
  for (const { name, from, to } of embeddedIn(lines))
    texts.set(name, [texts.get(name) ?? '', ...lines.slice(from - 1, to)].join('\n'));
  return texts;
}

/**
 * `show servers state` for the process that starts with this configuration. HAProxy prefers an address in it to a
 * changed one in the configuration, so only unchanged servers of snippets are in it.
 *
 * @param ours backends of ours
 */
export function statesFor(states: string, config: string, ours: ReadonlySet<string>): string {
  const lines = states.split('\n');
  const columns =
    lines
      .find((line) => line.startsWith('# '))
      ?.slice(2)
      .split(' ') ?? [];
  const foreign = foreignServers(config);
  return lines
    .filter((line) => {
      const cells = line.split(' ');
      if (line.startsWith('#') || cells.length < columns.length) return true;
      const of = (column: string): string => cells[columns.indexOf(column)] ?? '';
      const server = `${of('be_name')}/${of('srv_name')} ${of('srv_addr')}:${of('srv_port')}`;
      return ours.has(of('be_name')) || foreign.has(server);
    })
    .join('\n');
}

/** `BACKEND/NAME ADDRESS:PORT` of the servers of snippets. */
function foreignServers(config: string): Set<string> {
  const found = new Set<string>();
  let section = '';
  for (const text of snippetsIn(config).values())
    for (const line of text.split('\n')) {
      const [first = '', name = '', address = ''] = wordsOf(line);
      if (SECTIONS.has(first)) section = name;
      else if (first === 'server') found.add(`${section}/${name} ${address.replace(/^\[(.*)\]/, '$1')}`);
    }
  return found;
}

/** What HAProxy calls an alert in its output, without date and pid. */
export function alertsIn(text: string): string[] {
  return text.split('\n').flatMap((line) => /^\[ALERT\][^:]*: (?:config : )?(.*)$/.exec(line)?.[1] ?? []);
}

/**
 * What HAProxy says about a configuration, as a complaint about one of its snippets.
 *
 * @param path under which HAProxy read it
 * @returns undefined where no line of the snippet is named
 */
export function complaintIn(
  said: readonly string[],
  { config, path, name }: { readonly config: string; readonly path: string; readonly name: string },
): Complaint | undefined {
  const parts = embeddedIn(config.split('\n')).filter((each) => each.name === name);
  for (const sentence of said) {
    for (const rest of sentence.split(`[${path}:`).slice(1)) {
      const at = Number.parseInt(rest, 10);
      const part = parts.find(({ from, to }) => from <= at && at <= to);
      if (part !== undefined) return { line: part.first + at - part.from, why: spoken(sentence, path) };
    }
  }
  return undefined;
}

/**
 * Which snippets keep a new process from starting: those that HAProxy names, else all new ones that listen. Before 2.7
 * it writes the reason only into the journal.
 *
 * @param former the configuration that the running process was started with
 */
export function blamedFor(
  snippets: readonly UsedSnippet[],
  {
    former,
    config,
    said,
    path,
    unit,
  }: {
    readonly former: string;
    readonly config: string;
    readonly said: readonly string[];
    readonly path: string;
    readonly unit: string;
  },
): Map<UsedSnippet, Complaint> {
  const [before, now] = [snippetsIn(former), snippetsIn(config)];
  const added = snippets.filter(({ name }) => now.get(name) !== before.get(name));
  const named = added.flatMap((snippet) => {
    const complaint = complaintIn(said, { config, path, name: snippet.name });
    return complaint === undefined ? [] : [[snippet, complaint] as const];
  });
  if (named.length > 0) return new Map(named);
  const listening = added.filter(({ binds }) => binds.length > 0);
  const blamed = listening.length > 0 ? listening : added;
  const what = blamed.length === 1 ? 'it' : 'the new snippets';
  const why = `HAProxy does not start with ${what}, e.g. because a port is in use: see \`journalctl -u ${unit}\``;
  return new Map(blamed.map((snippet) => [snippet, { why }]));
}

/** Without the place, which is in our file, and not too long. */
export function spoken(sentence: string, path: string): string {
  const plain = sentence
    .replace(/^(parsing|binding) /i, '')
    .split(`[${path}:`)
    .map((part, index) => (index === 0 ? part : part.replace(/^\d+\](?: ?: ?)?/, '')))
    .join('');
  return `HAProxy says: ${plain.replaceAll(path, 'haproxy.cfg').trim().slice(0, 300)}`;
}

/**
 * Which of them HAProxy takes together: each is tried beside those that it took, and again while another was taken
 * since, as one can need another.
 *
 * @returns the others
 */
export async function refusedOf<S>(
  all: readonly S[],
  complaintAbout: (one: S, beside: readonly S[]) => Promise<Complaint | undefined>,
): Promise<Map<S, Complaint>> {
  const refused = new Map<S, Complaint>();
  const taken = new Set<S>();
  for (let progress = true; progress; ) {
    progress = false;
    for (const one of all) {
      if (taken.has(one)) continue;
      const complaint = await complaintAbout(
        one,
        all.filter((each) => taken.has(each) || each === one),
      );
      if (complaint !== undefined) {
        refused.set(one, complaint);
        continue;
      }
      taken.add(one);
      refused.delete(one);
      progress = refused.size > 0;
    }
  }
  return refused;
}
