import { type BirdProtocol, parseProtocols, type ReplyLine } from './control.ts';
import { type BirdSession, PROTOCOL, type RunningBird } from './plan.ts';

/** Gives BIRD one command after another; undefined where it does not answer. */
export type Ask = (command: string) => Promise<ReplyLine[] | undefined>;

/** Protocols that give routes to a neighbour. */
const CARRIERS: readonly string[] = ['BGP', 'OSPF', 'RIP', 'Babel'];
/** A node has one or two sessions and a few addresses; each pair is one short question. */
const MAX_QUESTIONS = 64;

export interface Sight extends RunningBird {
  /** Of the first BGP session. */
  readonly localAs: number | undefined;
}

/**
 * What BIRD has loaded and what each of its sessions exports of our addresses. A table is never walked: each address is
 * looked up alone, since a founder's table may hold the whole internet.
 */
export async function lookAt(ask: Ask, networks: readonly string[]): Promise<Sight | undefined> {
  const lines = await ask('show protocols all');
  if (lines === undefined) return undefined;
  const protocols = parseProtocols(lines);
  const floating = protocols.find((protocol) => protocol.name === PROTOCOL);
  const sessions: BirdSession[] = [];
  let questions = 0;
  for (const protocol of protocols.filter(({ kind }) => CARRIERS.includes(kind))) {
    const { name, info } = protocol;
    const up = isUp(protocol);
    const routes: BirdSession['routes'][number][] = [];
    for (const network of up ? networks : []) {
      questions += 1;
      if (questions > MAX_QUESTIONS) break;
      const answer = await ask(`show route ${network} export ${symbolOf(name)}`);
      if (answer === undefined) return undefined;
      routes.push(...parseRoutes(answer, network));
    }
    sessions.push({ name, state: info, up, routes });
  }
  return {
    loaded: floating === undefined ? undefined : /^bornemisza (\w+)$/.exec(floating.description)?.[1],
    announcing: floating?.up ?? false,
    sessions,
    localAs: protocols.find((each) => each.localAs !== undefined)?.localAs,
  };
}

function isUp({ kind, info, up }: BirdProtocol): boolean {
  return up && (kind !== 'BGP' || info.startsWith('Established'));
}

/** Reads `show route NETWORK export SESSION`, e.g. `192.0.2.7/32  unicast [direct1 08:56:20.126] * (240)`. */
export function parseRoutes(lines: readonly ReplyLine[], network: string): BirdSession['routes'] {
  return lines.flatMap(({ code, text }) => {
    const row = /^(\S+)\s+\S+ \[(\S+) /.exec(text);
    if (code !== 1007 || row?.[1] !== network) return [];
    return [{ address: network.replace(/\/32$/, ''), by: row[2] ?? '' }];
  });
}

/** A name that is no plain word stands in quotes in BIRD's language. */
function symbolOf(name: string): string {
  return /^[A-Za-z_]\w*$/.test(name) ? name : `'${name}'`;
}
