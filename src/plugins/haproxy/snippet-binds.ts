import { isIP } from 'node:net';
import { inTheWay, type Listening } from '../../host/listening-sockets.ts';
import { type Bind, bindsOf, SECTIONS, wordsOf } from './snippet-lines.ts';
import { type Complaint, snippetsIn, type UsedSnippet } from './snippets.ts';

/**
 * Snippets that a new process could not listen for. HAProxy would find that out by itself, but it tries for two seconds
 * and the old process accepts no connection meanwhile.
 */
export function unbindable(
  snippets: readonly UsedSnippet[],
  of: {
    /** The configuration that the running process was started with. */
    readonly former: string;
    /** Frontends of the running process. */
    readonly running: ReadonlySet<string>;
    readonly sockets: readonly Listening[];
    /** All addresses of this host. */
    readonly addresses: readonly string[];
  },
): Map<UsedSnippet, Complaint> {
  const present = bindsIn(of.former);
  // HAProxy itself listens there: as the file says, or as a former file said, from before it was away.
  const isOwn = (bind: Bind): boolean =>
    present.some((each) => each.address === bind.address && each.from <= bind.from && bind.to <= each.to) ||
    (of.running.has(bind.section) && !present.some(({ section }) => section === bind.section));
  const refused = new Map<UsedSnippet, Complaint>();
  for (const snippet of snippets)
    for (const bind of snippet.binds.filter((each) => !isOwn(each))) {
      const why = problemOf(bind, of.sockets, of.addresses);
      if (why !== undefined && !refused.has(snippet)) refused.set(snippet, { line: bind.line, why });
    }
  return refused;
}

function problemOf(
  { address, from, to, transparent }: Bind,
  sockets: readonly Listening[],
  addresses: readonly string[],
): string | undefined {
  const port = sockets
    .map((each) => each.port)
    .find((each) => from <= each && each <= to && inTheWay(sockets, address, each).length > 0);
  if (port !== undefined) return `another program listens on port ${port}: \`ss -ltnp 'sport = :${port}'\``;
  const plain = address.replace(/^\[(.*)\]$/, '$1');
  const isHere = isIP(plain) === 0 || plain.startsWith('127.') || addresses.includes(plain);
  return isHere || transparent
    ? undefined
    : `${plain} is not an address of this host now: leave it out, or add "transparent"`;
}

function bindsIn(config: string): Bind[] {
  const found: Bind[] = [];
  for (const text of snippetsIn(config).values()) {
    let section = '';
    for (const line of text.split('\n')) {
      const words = wordsOf(line);
      const [first = '', second = ''] = words;
      if (SECTIONS.has(first)) section = second;
      const binds = first === 'bind' ? bindsOf(words, { section, line: 0 }) : [];
      if (typeof binds !== 'string') found.push(...binds);
    }
  }
  return found;
}
