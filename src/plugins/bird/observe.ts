import { join } from 'node:path';
import { readIfOurs } from '../../host/files.ts';
import { addressOf } from '../../host/floating-address.ts';
import { addressesNow } from '../../host/ip.ts';
import { PluginError } from '../contract.ts';
import { type BirdProtocol, parseProtocols, type ReplyLine, tell } from './control.ts';
import { readDevices } from './device.ts';
import {
  addressesIn,
  type BirdFault,
  type BirdObserved,
  type BirdSession,
  FRAGMENT,
  localAsIn,
  PROTOCOL,
  type RunningBird,
} from './plan.ts';
import { faultOf } from './report.ts';

/** Sends BIRD one command after another; undefined if it does not answer. */
type Ask = (command: string) => Promise<ReplyLine[] | undefined>;

/** Protocols that give routes to a neighbour. */
const CARRIERS: readonly string[] = ['BGP', 'OSPF', 'RIP', 'Babel'];
/**
 * A node has one or two sessions. Each is asked about each address, at most 16; the report names how many were not
 * asked.
 */
const MAX_SESSIONS = 16;

export interface Sight extends RunningBird {
  /** Of the first BGP session. */
  readonly localAs: number | undefined;
}

/**
 * What BIRD has loaded and what each of its sessions exports of our addresses. Each address is looked up by itself,
 * since a founder's table can hold the routes of the whole internet.
 */
export async function lookAt(ask: Ask, networks: readonly string[]): Promise<Sight | undefined> {
  const lines = await ask('show protocols all');
  if (lines === undefined) return undefined;
  const protocols = parseProtocols(lines);
  const floating = protocols.find((protocol) => protocol.name === PROTOCOL);
  const sessions: BirdSession[] = [];
  let asked = 0;
  for (const protocol of protocols.filter(({ kind }) => CARRIERS.includes(kind)).toSorted(bgpFirst)) {
    const { name, info, holdTimeS } = protocol;
    const up = isUp(protocol);
    const routes: BirdSession['routes'][number][] = [];
    const unasked = up && asked >= MAX_SESSIONS;
    if (up && !unasked) asked += 1;
    for (const network of up && !unasked ? networks : []) {
      const answer = await ask(`show route ${network} export ${symbolOf(name)}`);
      if (answer === undefined) return undefined;
      routes.push(...parseRoutes(answer, network));
    }
    sessions.push({ name, state: info, up, routes, holdTimeS, ...(unasked && { unasked }) });
  }
  return {
    loaded: floating === undefined ? undefined : /^bornemisza (\w+)$/.exec(floating.description)?.[1],
    announcing: floating?.up ?? false,
    sessions,
    localAs: protocols.find((each) => each.localAs !== undefined)?.localAs,
  };
}

/** The provider's sessions are BGP; others keep their order. */
function bgpFirst(one: BirdProtocol, other: BirdProtocol): number {
  return Number(other.kind === 'BGP') - Number(one.kind === 'BGP');
}

function isUp({ kind, info, up }: BirdProtocol): boolean {
  return up && (kind !== 'BGP' || info.startsWith('Established'));
}

/** Reads `show route NETWORK export SESSION`, e.g. `192.0.2.7/32  unicast [direct1 08:56:20.126] * (240)`. */
function parseRoutes(lines: readonly ReplyLine[], network: string): BirdSession['routes'] {
  return lines.flatMap(({ code, text }) => {
    const row = /^(\S+)\s+\S+ \[(\S+) /.exec(text);
    if (code !== 1007 || row?.[1] !== network) return [];
    return [{ address: addressOf(network), by: row[2] ?? '' }];
  });
}

/** BIRD needs quotes around a name with special characters. */
function symbolOf(name: string): string {
  return /^[A-Za-z_]\w*$/.test(name) ? name : `'${name}'`;
}

/**
 * Listing the devices starts a process, which takes 0.1 to 0.3 s on a busy host, before a withdrawal that takes a
 * millisecond. The list is reused while the host has the same addresses, which one system call shows; not longer than
 * this, since that call does not show the kind of a device.
 */
const DEVICES_HOLD_MS = 10_000;
export interface BirdOptions {
  /** Included by root's bird.conf, e.g. /etc/bird/bornemisza.d. */
  readonly fragmentDirectory: string;
  /** E.g. /run/bird/bird.ctl. */
  readonly controlSocket: string;
  readonly binary?: string;
  /** How often addresses and the announcement are checked. Default 500. */
  readonly watchIntervalMs?: number;
  /** Default: `ip -d addr`. */
  readonly readDevices?: typeof readDevices;
}

/** Reads the devices, our fragment and the state of BIRD. */
export class BirdObserver {
  /** Of our fragment. */
  readonly path: string;
  readonly #options: BirdOptions;
  #fault: { readonly code: BirdFault; readonly sinceMs: number } | undefined;
  #devicesSeen:
    | { readonly devices: BirdObserved['devices']; readonly with: string; readonly atMs: number }
    | undefined;

  constructor(options: BirdOptions) {
    this.#options = options;
    this.path = join(options.fragmentDirectory, FRAGMENT);
  }

  async observe(signal: AbortSignal): Promise<BirdObserved> {
    const fragment = await readIfOurs(this.path);
    const [devices, running] = await Promise.all([this.#devices(signal), this.running(signal, fragment)]);
    const fault = this.judge(running, fragment);
    const localAs = running?.localAs ?? localAsIn(fragment ?? '');
    return { devices, fragment, localAs, running, fault };
  }

  /** Drops the cached devices before a change. */
  forgetDevices(): void {
    this.#devicesSeen = undefined;
  }

  async #devices(signal: AbortSignal): Promise<BirdObserved['devices']> {
    const [addresses, nowMs] = [addressesNow(), performance.now()];
    const seen = this.#devicesSeen;
    if (seen?.with === addresses && nowMs - seen.atMs < DEVICES_HOLD_MS) return seen.devices;
    const read = this.#options.readDevices ?? readDevices;
    const devices = await read(signal);
    this.#devicesSeen = { devices, with: addresses, atMs: nowMs };
    return devices;
  }

  /** @param fragment its addresses are looked up in BIRD; without it none are */
  async running(signal: AbortSignal, fragment = ''): Promise<Sight | undefined> {
    const ask = async (command: string): Promise<ReplyLine[]> =>
      (await tell(this.#options.controlSocket, [command], { signal }))[0] ?? [];
    try {
      return await lookAt(ask, addressesIn(fragment));
    } catch (error) {
      if (error instanceof PluginError && error.code === 'bird-not-running') return undefined;
      throw error;
    }
  }

  /** For how long the announcement has differed from our fragment. */
  judge(running: Sight | undefined, fragment = ''): BirdObserved['fault'] {
    const addresses = addressesIn(fragment).map(addressOf);
    const code = running === undefined ? undefined : faultOf(running, addresses, announcedIn(fragment));
    const nowMs = performance.now();
    if (code !== this.#fault?.code) this.#fault = code === undefined ? undefined : { code, sinceMs: nowMs };
    const { sinceMs = nowMs } = this.#fault ?? {};
    return code === undefined ? undefined : { code, forMs: nowMs - sinceMs };
  }
}

function announcedIn(fragment: string): boolean {
  return /^ {2}disabled no;$/m.test(fragment);
}
