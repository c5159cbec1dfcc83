/* oxlint-disable no-underscore-dangle -- CouchDB's own field names */
import { setTimeout as sleep } from 'node:timers/promises';
import { newMap } from '../../standin/couchdb/cluster/shard_map.ts';
import { checkpointId } from '../../standin/couchdb/cluster/sync.ts';
import { type Body, newRevision } from '../../standin/couchdb/store/revision.ts';
import { difference, Names } from './compare.ts';
import type { Fronts, StartOptions } from './fronts.ts';
import { isOver } from '../../support/patience.ts';

export type Exchange = {
  name: string;
  request: { node: string; method: string; path: string; headers: Record<string, string>; body: unknown };
  response: { status: number; headers: Record<string, string>; body: unknown };
  seconds: number;
};

type Ask = { node: number; method?: string; path: string; body?: unknown; status?: number | number[] };
/** What happened between exchanges, beside the requests themselves. */
export type Step =
  | { start: number | number[]; with?: StartOptions }
  | { stop: number | number[] }
  | { freeze: number }
  | { thaw: number }
  | { rebind: number; to: string }
  | { ask: Ask }
  | { until: Ask & { has?: Record<string, unknown>; is?: unknown }; forMs?: number }
  | {
      fill: {
        node: number;
        db: string;
        prefix: string;
        digits: number;
        from?: number;
        count: number;
        field: string;
        pad?: number;
      };
    }
  | { twin: { db: string; wins: number; loses: number; holders: number[]; loserHolders: number[] } }
  | { favour: { db: string; holders: number[]; against: number; wins: boolean } }
  | { grow: { node: number; add: number; dbs: string[] } }
  | { draw: { node: number; path: string; holders: Record<string, number[]> } }
  | { cut: number }
  | { heal: number }
  | { early: true }
  | { rival: { dbs: string[]; wins: number; loses: number } }
  | { waitMs: number };

export type Scenario = {
  name: string;
  /** Which recording; `notHeld` speaks of transcripts.jsonl only. */
  file: 'transcripts.jsonl' | 'transcripts-2.jsonl';
  /** Exchanges by number, counted from 0: [first, last] pairs in the order of the recording. */
  exchanges: [number, number][];
  /** Steps before the exchange of that number. */
  before: Record<string, Step[]>;
  /** Links are cut in it: each node has a network namespace of its own, which takes root. */
  apart?: true;
  /** `[from, to]` nodes of a checkpoint whose id must be computed from this run's uuids. */
  checkpoints?: Record<string, [number, number]>;
};
export type Manifest = {
  scenarios: Scenario[];
  /**
   * Exchanges that are left out or may differ, each with the reason; those of the second recording by `FILE NUMBER`.
   */
  notHeld: Record<string, string>;
  /** The same for a release, which is not pinned: what was chance in the recording is chance again. */
  realMayDiffer: Record<string, string>;
  /** Parts of transcripts-2.jsonl that are not replayed, each with the reason. */
  notReplayed: Record<string, string>;
};
export type Outcome = { file: Scenario['file']; number: number; name: string; difference?: string };

/** With REPLAY_TRACE set: what is being done, and since when, for a run that takes long. */
function trace(text: string): void {
  if (process.env.REPLAY_TRACE !== undefined)
    console.error(`${(performance.now() / 1000).toFixed(1)} ${text.slice(0, 300)}`);
}

const pollMs = 50;
const settleMs = 6000;
/** Requests that change nothing may be asked again until the cluster has settled. */
const isRead = ({ method, path }: Exchange['request']) =>
  method === 'GET' || /\/_find$|_dbs_info$/.test(path);

/** Replays one scenario against running fronts and tells of each exchange how its answer differs, if it does. */
export class Replay {
  readonly #fronts: Fronts;
  readonly #exchanges: Exchange[];
  readonly #manifest: Manifest;
  readonly #names = new Names();

  constructor(fronts: Fronts, exchanges: Exchange[], manifest: Manifest) {
    this.#fronts = fronts;
    this.#exchanges = exchanges;
    this.#manifest = manifest;
  }

  async run(scenario: Scenario): Promise<Outcome[]> {
    const outcomes: Outcome[] = [];
    for (const [first, last] of scenario.exchanges) {
      for (let number = first; number <= last; number++) {
        for (const failure of await this.#prepare(scenario.before[String(number)] ?? []))
          outcomes.push({ file: scenario.file, number, name: 'what comes before', difference: failure });
        if (
          scenario.file === 'transcripts.jsonl' &&
          this.#manifest.notHeld[String(number)]?.startsWith('skip:')
        )
          continue;
        outcomes.push({
          file: scenario.file,
          ...(await this.#exchange(number, scenario.checkpoints?.[String(number)])),
        });
      }
    }
    return outcomes;
  }

  /** @returns what went wrong. The rest is asked all the same: each answer is compared for itself. */
  async #prepare(steps: Step[]): Promise<string[]> {
    const failures: string[] = [];
    for (const step of steps) {
      try {
        trace(`step ${JSON.stringify(step)}`);
        await this.#step(step);
      } catch (error) {
        failures.push((error as Error).message);
      }
    }
    return failures;
  }

  async #exchange(number: number, checkpoint?: [number, number]): Promise<Omit<Outcome, 'file'>> {
    const { name, request, response } = this.#exchanges[number] as Exchange;
    trace(`${number} ${name}`);
    const node = request.node === '127.0.0.1' ? 4 : Number(request.node.split('.').at(-1));
    const path = await this.#path(node, request, checkpoint);
    await this.#learnFirst(node, path, request);
    const body = this.#bodyHere(request);
    const headers = this.#headersHere(request.headers);
    const recorded = JSON.parse(this.#fronts.here(JSON.stringify(response.body ?? null))) as unknown;
    const context = {
      names: this.#names,
      drawnFor: drawnFor(request.path),
      chance: this.#fronts.real,
    };
    const sinceMs = performance.now();
    const settlesMs = isRead(request) ? settleMs : 0;
    let found: string | undefined;
    do {
      const answer = await this.#fetch(node, request.method, path, headers, body);
      if (answer.status === response.status) {
        found = difference(recorded, answer.body, context);
        this.#learnCookie(response.headers['Set-Cookie'], answer.cookie);
      } else
        found =
          `status: recorded ${response.status}, here ${answer.status} ` +
          JSON.stringify(answer.body).slice(0, 300);
      if (found !== undefined && !isOver(sinceMs, settlesMs)) await sleep(pollMs);
    } while (found !== undefined && !isOver(sinceMs, settlesMs));
    if (found !== undefined) trace(`${number} differs: ${found}`);
    return found === undefined ? { number, name } : { number, name, difference: found };
  }

  async #path(node: number, request: Exchange['request'], checkpoint?: [number, number]): Promise<string> {
    for (const [, db, suffix] of request.path.matchAll(/%2F([^%/]+)(\.\d{10})\b/g)) {
      await this.#learnSuffix(node, db as string, suffix as string);
    }
    const path = this.#fronts
      .here(request.path)
      .replaceAll(/\.\d{10}\b/g, (it) => this.#names.here('suffix', it) ?? it);
    const named = path.replaceAll(
      /\d+-[0-9a-f]{32}/g,
      (it) => this.#names.here(`revision ${drawnFor(request.path)}`, it) ?? it,
    );
    if (checkpoint === undefined) return named;
    const copy = named.match(/shards%2F[^/]+/)?.[0] ?? '';
    const uuids = await Promise.all(
      checkpoint.map(async (it) => {
        const answer = await this.#fetch(
          node,
          'GET',
          `/_node/couchdb@${this.#fronts.base}${it}/${copy}`,
          admin,
          undefined,
        );
        return (answer.body as { uuid: string }).uuid;
      }),
    );
    return named.replace(/_local\/.*$/, checkpointId(uuids[0] as string, uuids[1] as string));
  }

  async #learnSuffix(node: number, db: string, recorded: string): Promise<void> {
    const { body } = await this.#fetch(node, 'GET', `/_node/_local/_dbs/${db}`, admin, undefined);
    const codes = (body as { shard_suffix?: number[] }).shard_suffix;
    if (codes !== undefined) this.#names.note('suffix', recorded, String.fromCodePoint(...codes));
  }

  /** A revision that the recording took from an unrecorded read is read here too. */
  async #learnFirst(
    node: number,
    path: string,
    { method, path: recordedPath, body }: Exchange['request'],
  ): Promise<void> {
    const inBody = body !== null && typeof body === 'object' ? (body as Body) : {};
    const rev = (inBody._rev as string | undefined) ?? recordedPath.match(/[?&]rev=([^&]+)/)?.[1];
    if (
      (method !== 'PUT' && method !== 'DELETE') ||
      rev === undefined ||
      this.#names.here(`revision ${drawnFor(recordedPath)}`, rev)
    )
      return;
    if (!/_dbs\/|_users\//.test(path)) return;
    const answer = await this.#fetch(node, 'GET', path.split('?')[0] as string, admin, undefined);
    const doc = answer.body as { _rev?: string; shard_suffix?: number[] };
    if (doc._rev === undefined) return;
    const document = drawnFor(recordedPath);
    if (Number.parseInt(rev, 10) + this.#names.shift(document) === Number.parseInt(doc._rev, 10))
      this.#names.learn(`revision ${document}`, rev, doc._rev);
    if (doc.shard_suffix !== undefined) {
      this.#names.note(
        'suffix',
        String.fromCodePoint(...(inBody.shard_suffix as number[])),
        String.fromCodePoint(...doc.shard_suffix),
      );
    }
  }

  #bodyHere({ body, path }: Exchange['request']): string | undefined {
    if (body === null || body === undefined) return undefined;
    const text = this.#fronts.here(
      typeof body === 'string'
        ? body
        : JSON.stringify(typeof body === 'object' ? this.#suffixHere(body) : body),
    );
    const renamed = text.replaceAll(
      /\d+-[0-9a-f]{32}/g,
      (it) => this.#names.here(`revision ${drawnFor(path)}`, it) ?? it,
    );
    return renamed.replaceAll(
      /-pbkdf2:sha256-[0-9a-f]{64},[0-9a-f]{32},\d+/g,
      (it) => this.#names.here('hash', it) ?? it,
    );
  }

  #suffixHere(body: object): object {
    if (!('shard_suffix' in body)) return body;
    const recorded = String.fromCodePoint(...(body.shard_suffix as number[]));
    const here = this.#names.here('suffix', recorded) ?? recorded;
    return { ...body, shard_suffix: Array.from(here, (char) => char.codePointAt(0)) };
  }

  #headersHere(headers: Record<string, string>): Record<string, string> {
    const out: Record<string, string> = { ...headers, Accept: 'application/json' };
    const basic = headers.Authorization?.match(/^Basic <(.*)>$/)?.[1];
    if (basic !== undefined) out.Authorization = `Basic ${Buffer.from(basic).toString('base64')}`;
    const cookie = headers.Cookie;
    if (cookie !== undefined) out.Cookie = this.#names.here('cookie', cookie) ?? cookie;
    return out;
  }

  #learnCookie(recorded: string | undefined, here: string | undefined): void {
    const pair = (header: string) => header.split(';')[0] as string;
    if (recorded !== undefined && here !== undefined) this.#names.learn('cookie', pair(recorded), pair(here));
  }

  async #fetch(
    node: number,
    method: string,
    path: string,
    headers: Record<string, string>,
    body: string | undefined,
  ) {
    try {
      const { status, text, cookie } = await this.#fronts.ask(node, method, path, headers, body);
      return { status, body: parse(text), cookie };
    } catch (error) {
      return { status: 0, body: String(error), cookie: undefined };
    }
  }

  async #ask({ node, method = 'GET', path, body }: Ask) {
    const text = body === undefined ? undefined : this.#fronts.here(JSON.stringify(body));
    return await this.#fetch(node, method, this.#fronts.here(path), admin, text);
  }

  async #step(step: Step): Promise<void> {
    if ('start' in step) await this.#start([step.start].flat(), step.with ?? {});
    else if ('stop' in step) await Promise.all([step.stop].flat().map((node) => this.#fronts.stop(node)));
    else if ('freeze' in step) this.#fronts.freeze(step.freeze);
    else if ('thaw' in step) this.#fronts.thaw(step.thaw);
    else if ('rebind' in step) this.#fronts.rebind(step.rebind, step.to);
    else if ('cut' in step) await this.#fronts.cut(step.cut);
    else if ('heal' in step) await this.#fronts.heal(step.heal);
    else if ('early' in step) await sleep(1005 - (Date.now() % 1000));
    else if ('rival' in step) await this.#rival(step.rival);
    else if ('waitMs' in step) await sleep(step.waitMs);
    else if ('ask' in step) await this.#mustAnswer(step.ask);
    else if ('until' in step) await this.#until(step.until, step.forMs ?? 30_000);
    else if ('fill' in step) await this.#fill(step.fill);
    else if ('twin' in step) await this.#twin(step.twin);
    else if ('grow' in step) await this.#grow(step.grow);
    else if ('draw' in step) await this.#draw(step.draw);
    else await this.#favour(step.favour);
  }

  async #start(nodes: number[], options: StartOptions): Promise<void> {
    const fixed = { ...options };
    if (fixed.secret?.startsWith('@')) {
      const path = '/_node/_local/_config/chttpd_auth/secret';
      fixed.secret = (await this.#ask({ node: Number(fixed.secret.slice(1)), path })).body as string;
    }
    await Promise.all(nodes.map((node) => this.#fronts.start(node, fixed)));
  }

  /** Puts a node into every range of the databases' maps. */
  async #grow({ node, add, dbs }: Extract<Step, { grow: object }>['grow']): Promise<void> {
    const name = `couchdb@${this.#fronts.base}${add}`;
    for (const db of dbs) {
      const path = `/_node/_local/_dbs/${db}`;
      const { body } = await this.#ask({ node, path });
      const map = body as {
        by_range: Record<string, string[]>;
        by_node: Record<string, string[]>;
        changelog: unknown[];
      };
      for (const [range, holders] of Object.entries(map.by_range)) {
        holders.push(name);
        map.changelog.push(['add', range, name]);
      }
      map.by_node[name] = Object.keys(map.by_range);
      await this.#mustAnswer({ node, method: 'PUT', path, body: map });
    }
  }

  /**
   * A release deals copies out from a random node on: the database is made again until they lie where the recording has
   * them, since what follows stops and fills these very nodes. The stand-in's are pinned, so it never is.
   */
  async #draw({ node, path, holders }: Extract<Step, { draw: object }>['draw']): Promise<void> {
    const db = (path.split('?')[0] as string).slice(1);
    const wanted = Object.entries(holders).map(([range, nodes]) => [
      range,
      nodes.map((it) => `couchdb@${this.#fronts.base}${it}`).toSorted(),
    ]);
    for (let attempt = 0; attempt < 60; attempt++) {
      const { body } = await this.#ask({ node, path: `/_node/_local/_dbs/${db}` });
      const byRange = (body as { by_range?: Record<string, string[]> }).by_range ?? {};
      const found = Object.entries(byRange).map(([range, nodes]) => [range, nodes.toSorted()]);
      if (JSON.stringify(found.toSorted()) === JSON.stringify(wanted.toSorted())) return;
      await this.#mustAnswer({ node, method: 'DELETE', path: `/${db}`, status: [200, 202] });
      // Another second, another suffix: the files of the one that went may still be there.
      await sleep(1005 - (Date.now() % 1000));
      await this.#mustAnswer({ node, method: 'PUT', path });
      this.#names.madeAnew(`/_dbs/${db}`);
    }
    throw new Error(`${db} does not come to lie on ${JSON.stringify(holders)}`);
  }

  async #mustAnswer(ask: Ask): Promise<void> {
    const answer = await this.#ask(ask);
    const wanted = [ask.status ?? [200, 201, 202]].flat();
    if (!wanted.includes(answer.status)) {
      throw new Error(`${ask.method ?? 'GET'} ${ask.path}: ${answer.status} ${JSON.stringify(answer.body)}`);
    }
  }

  async #until(until: Ask & { has?: Record<string, unknown>; is?: unknown }, forMs: number): Promise<void> {
    const deadline = Date.now() + forMs;
    const wanted = until.is === undefined ? undefined : this.#fronts.here(JSON.stringify(until.is));
    for (;;) {
      const { status, body } = await this.#ask({
        ...until,
        path: await this.#copyPath(until.node, until.path),
      });
      const entries = Object.entries(until.has ?? {});
      const fits = entries.every(
        ([key, value]) => this.#fronts.here(JSON.stringify(value)) === JSON.stringify((body as Body)?.[key]),
      );
      if (
        status === (until.status ?? 200) &&
        fits &&
        (wanted === undefined || wanted === JSON.stringify(body))
      )
        return;
      if (Date.now() > deadline)
        throw new Error(`${until.path} stays ${status} ${JSON.stringify(body).slice(0, 300)}`);
      await sleep(pollMs);
    }
  }

  /** `COPY(4,00000000-7fffffff,big)` is that copy's own path, suffix included. */
  async #copyPath(node: number, path: string): Promise<string> {
    const [, holder, range, db] = path.match(/^COPY\((\d+),([0-9a-f-]+),(.+)\)$/) ?? [];
    if (db === undefined) return path;
    const { body } = await this.#ask({ node, path: `/_node/_local/_dbs/${encodeURIComponent(db)}` });
    const suffix = String.fromCodePoint(...((body as { shard_suffix?: number[] }).shard_suffix ?? []));
    return `/_node/couchdb@10.77.0.${holder}/shards%2F${range}%2F${encodeURIComponent(db)}${suffix}`;
  }

  async #fill({
    node,
    db,
    prefix,
    digits,
    from = 0,
    count,
    field,
    pad,
  }: Extract<Step, { fill: object }>['fill']): Promise<void> {
    const docs = Array.from({ length: count }, (_, i) => ({
      _id: `${prefix}${String(from + i).padStart(digits, '0')}`,
      [field]: from + i,
      ...(pad === undefined ? {} : { pad: 'x'.repeat(pad) }),
    }));
    for (let i = 0; i < docs.length; i += 2000) {
      await this.#mustAnswer({
        node,
        method: 'POST',
        path: `/${db}/_bulk_docs`,
        body: { docs: docs.slice(i, i + 2000) },
      });
    }
  }

  /** The same database on two sides that don't know of each other, the maps' hashes such that `wins` wins. */
  async #twin({
    db,
    wins,
    loses,
    holders,
    loserHolders,
  }: Extract<Step, { twin: object }>['twin']): Promise<void> {
    const second = Math.floor(Date.now() / 1000);
    const winner = this.#mapAt(holders, second);
    let loser = this.#mapAt(loserHolders, second);
    for (let i = 1; loser.hash >= winner.hash && i < 1000; i++) loser = this.#mapAt(loserHolders, second - i);
    const path = `/_node/_local/_dbs/${db}`;
    await this.#mustAnswer({ node: wins, method: 'PUT', path, body: winner.body });
    await this.#mustAnswer({ node: loses, method: 'PUT', path, body: loser.body });
  }

  /**
   * Databases whose maps come to have two revisions by two recorded edits, made in such a second that the recorded one
   * wins: revisions are hashes over the map, the second of its creation included.
   * @param wins number of the exchange whose edit has to win
   */
  async #rival({ dbs, wins, loses }: Extract<Step, { rival: object }>['rival']): Promise<void> {
    const edited = (number: number, suffix: string, parent: string) => {
      const text = this.#fronts.here(JSON.stringify(this.#exchanges[number]?.request.body));
      const { _id: _own, _rev: _before, ...map } = JSON.parse(text) as Body;
      return newRevision(false, 1, parent, { ...map, shard_suffix: [...Buffer.from(suffix)] });
    };
    for (let second = Math.floor(Date.now() / 1000); ; second--) {
      const { body, hash } = this.#mapAt([1, 2, 3], second);
      if (edited(wins, `.${second}`, hash) < edited(loses, `.${second}`, hash)) continue;
      for (const db of dbs)
        await this.#mustAnswer({ node: 1, method: 'PUT', path: `/_node/_local/_dbs/${db}`, body });
      return;
    }
  }

  /** Waits for a second in which the node's new map would win (or lose) against the one that another node has. */
  async #favour({ db, holders, against, wins }: Extract<Step, { favour: object }>['favour']): Promise<void> {
    const other = await this.#ask({ node: against, path: `/_node/_local/_dbs/${db}` });
    const { _rev: rev, shard_suffix: codes = [] } = other.body as { _rev?: string; shard_suffix?: number[] };
    const hash = rev?.split('-')[1];
    const suffix = String.fromCodePoint(...codes); // in the same second both would have the same files
    for (;;) {
      const now = Date.now();
      const mine = this.#mapAt(holders, Math.floor(now / 1000));
      const early = now % 1000 < 600; // the request still has to come in the same second
      const fits = hash === undefined ? wins === mine.hash > '8' : wins === mine.hash > hash;
      if (early && fits && suffix !== `.${Math.floor(now / 1000)}`) return;
      await sleep(1000 - (now % 1000) + 5);
    }
  }

  #mapAt(holders: number[], second: number): { body: Body; hash: string } {
    const nodes = holders.map((it) => `couchdb@${this.#fronts.base}${it}`);
    const body = newMap(nodes, 2, 3, `.${second}`, 0);
    return { body, hash: newRevision(false, 0, undefined, body) };
  }
}

const admin = {
  Authorization: `Basic ${Buffer.from('admin:adminpw').toString('base64')}`,
  Accept: 'application/json',
  'Content-Type': 'application/json',
};

/** Shard maps hold a time and user documents a salt: their revisions are other ones in each run. */
function drawnFor(path: string): string | undefined {
  const document = path.match(/\/(?:_dbs|_users)\/[^?]+/)?.[0];
  if (document !== undefined) return document.includes('/_all_docs') ? 'any' : document;
  return /_dbs|_users/.test(path) ? 'any' : undefined;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
