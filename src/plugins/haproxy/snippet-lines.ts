/** Judges the lines of a founder's snippet: what HAProxy's own check cannot know. Pure. */

/** The sections that a snippet may have. Others change all of HAProxy, run programs, or are ours alone. */
export const SECTIONS: ReadonlySet<string> = new Set([
  'frontend',
  'backend',
  'listen',
  'userlist',
  'cache',
  'resolvers',
  'http-errors',
]);

/** Of all releases up to 3.4. HAProxy takes such a word for a new section wherever a line begins with it. */
const REFUSED_SECTIONS: ReadonlySet<string> = new Set([
  'acme',
  'crt-store',
  'defaults',
  'fcgi-app',
  'global',
  'haterm',
  'healthcheck',
  'log-forward',
  'log-profile',
  'mailers',
  'namespace_list',
  'peers',
  'program',
  'ring',
  'spoe-agent',
  'spoe-group',
  'spoe-message',
  'traces',
]);

/** What our own edge can have beside its routes. */
const EDGE_LINES: ReadonlySet<string> = new Set([
  'acl',
  'capture',
  'compression',
  'declare',
  'http-after-response',
  'http-error',
  'http-request',
  'http-response',
  'redirect',
  'use_backend',
]);

/** Proxies of ours, of both roles and of all versions. */
const OURS: ReadonlySet<string> = new Set([
  'GLOBAL',
  'MASTER',
  'app_door',
  'couchdb',
  'couchdb_local',
  'databases',
  'db_nodes',
  'door',
  'edge',
  'edges',
  'edges_door',
  'edges_local',
  'failures',
  'nothing',
  'peer_door',
  'permissions',
  'plain',
  'request_log',
  'stats',
]);

export function isOurs(name: string): boolean {
  return OURS.has(name) || /^(bornemisza|limit_|local_|svc_)|\.(own|panic|unwatched|watch)$/.test(name);
}

const WORDS: readonly (readonly [pattern: RegExp, why: string])[] = [
  [/^lua[.-]/, 'Lua code is a program inside HAProxy'],
  [/^external-check$/, '"external-check" runs a program'],
  [/^email-alert$/, '"email-alert" needs a section "mailers"; [notify] sends mail'],
  [/\/+(etc|run|var\/+lib)\/+bornemisza/, 'it names a file of Bornemisza'],
];

/** First words of a line, up to two, that would give more rights than a snippet has. */
const LINES: ReadonlyMap<string, string> = new Map([
  ['stats admin', '"stats admin" lets whoever sees the page take our servers out'],
  ['stats socket', '"stats socket" gives the rights of the daemon'],
  ['filter spoe', '"filter spoe" needs a file and a program of its own'],
]);

/**
 * The words of a line as HAProxy reads them (its manual, 2.2 "Quoting and escaping"), without a comment. Variables in
 * double quotes stay as they are.
 */
export function wordsOf(line: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quote = '';
  for (let at = 0; at < line.length; at += 1) {
    const sign = line.charAt(at);
    if (quote === '' && sign === '#') break;
    if (quote === '' && /\s/.test(sign)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else if (sign === quote) quote = '';
    else if (quote === '' && (sign === '"' || sign === "'")) {
      quote = sign;
      word ??= '';
    } else if (sign === '\\' && quote !== "'") {
      const hex = /^x([0-9A-Fa-f]{2})/.exec(line.slice(at + 1, at + 4))?.[1];
      word =
        (word ?? '') + (hex === undefined ? line.charAt(at + 1) : String.fromCharCode(parseInt(hex, 16)));
      at += hex === undefined ? 1 : 3;
    } else word = (word ?? '') + sign;
  }
  return word === undefined ? words : [...words, word];
}

/** Why a line cannot be in a snippet; undefined: HAProxy decides. @param section in which the line is */
export function refusalOf(line: string, words: readonly string[], section: string): string | undefined {
  const [first = '', second = ''] = words;
  // A keyword in quotes, or `.if`, which could leave out sections of ours.
  if (!/^[A-Za-z][\w-]*$/.test(first) || !line.trimStart().startsWith(first))
    return `a line begins with a keyword of letters, not with ${JSON.stringify(line.trim().slice(0, 20))}`;
  if (REFUSED_SECTIONS.has(first))
    return `a section "${first}" is not possible here, only ${[...SECTIONS].join(', ')}`;
  const found = WORDS.find(([pattern]) => words.some((word) => pattern.test(word)))?.[1];
  if (found !== undefined) return found;
  if (section === 'edge') return edgeRefusal(first, words);
  if (section === '') return `"${first}" is in no section: begin with one, such as "backend NAME"`;
  return LINES.get(`${first} ${second}`);
}

function edgeRefusal(first: string, words: readonly string[]): string | undefined {
  if (!EDGE_LINES.has(first))
    return `"${first}" is not possible in our "frontend edge", only ${[...EDGE_LINES].join(', ')}`;
  if (words.some((word) => /^track-sc[01]$/.test(word)))
    return 'the edge needs sc0 and sc1 for limits and its log: use track-sc2';
  return undefined;
}

/** Why the heading of a section is refused. */
export function headingRefusal(words: readonly string[]): string | undefined {
  const [kind = '', name = '', ...rest] = words;
  if (kind === 'frontend' && name === 'edge')
    return rest.length === 0 ? undefined : '"frontend edge" has nothing behind it';
  return isOurs(name) ? `the name "${name}" is ours: choose another one` : undefined;
}

/** Where a section listens. */
export interface Bind {
  /** Name of the section, and the line in its file. */
  readonly section: string;
  readonly line: number;
  /** `*`: all addresses. */
  readonly address: string;
  readonly from: number;
  readonly to: number;
  /** It may be an address that is not on this host. */
  readonly transparent: boolean;
}

/** @returns a sentence where it cannot be known where it listens; nothing for sockets in the file system */
export function bindsOf(
  words: readonly string[],
  at: Pick<Bind, 'section' | 'line'>,
): readonly Bind[] | string {
  const [, word = ''] = words;
  const transparent = words.includes('transparent');
  const binds: Bind[] = [];
  for (const part of word.split(',')) {
    if (/^(unix@|abns@|abnsz@|\/)/.test(part)) continue;
    const found =
      /^(?:(?:ipv4|ipv6|tcp4|tcp6|quic4|quic6|udp4|udp6)@)?([^@]*):(\d{1,5})(?:-(\d{1,5}))?$/.exec(part);
    if (found === null) return `"bind ${part}" needs an address and a port in digits, such as ":8080"`;
    const [, address = '', from = '', to = from] = found;
    const all = ['', '*', '0.0.0.0', '::', '[::]'].includes(address);
    binds.push({ ...at, address: all ? '*' : address, from: Number(from), to: Number(to), transparent });
  }
  return binds;
}
