import { mkdir } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { dirname } from 'node:path';
import type {
  AuditEntry,
  MemberRow,
  Progress,
  Refusal,
  StatusAnswer,
} from '../../../src/daemon/control/api.ts';
import type { Role } from '../../../src/daemon/membership/types.ts';
import { pathsFor } from '../../../src/daemon/config/config.ts';

export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly body: unknown;
}

export type Answer =
  | { readonly json: unknown; readonly status?: number }
  | { readonly lines: readonly unknown[]; readonly cut?: boolean }
  | { readonly raw: string; readonly status?: number }
  | 'silence';

/**
 * The far end of the control socket with answers made up by the test: HTTP on a real unix socket, where the daemon's
 * would be. Routes are `METHOD PATH` without the query.
 */
export class FakeDaemon {
  readonly asked: Asked[] = [];
  readonly #server: Server;
  readonly #socketPath: string;

  constructor(
    root: string,
    role: Role,
    answers: Readonly<Record<string, Answer | ((asked: Asked) => Answer)>>,
  ) {
    this.#socketPath = pathsFor(role, root).controlSocket;
    this.#server = createServer((request, response) => {
      void this.#answer(request, response, answers);
    });
  }

  async start(): Promise<this> {
    await mkdir(dirname(this.#socketPath), { recursive: true });
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(this.#socketPath, resolve);
    });
    return this;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(
    request: IncomingMessage,
    response: ServerResponse,
    answers: Readonly<Record<string, Answer | ((asked: Asked) => Answer)>>,
  ): Promise<void> {
    let body = '';
    for await (const chunk of request.setEncoding('utf8')) body += String(chunk);
    const asked: Asked = {
      method: request.method ?? '',
      path: request.url ?? '',
      body: body === '' ? undefined : JSON.parse(body),
    };
    this.asked.push(asked);
    const route = answers[`${asked.method} ${asked.path.split('?')[0]}`];
    const answer = typeof route === 'function' ? route(asked) : route;
    if (answer === undefined)
      respond(response, 404, JSON.stringify(refusal('no-such-path', 'nothing there', 'look elsewhere')));
    else if (answer !== 'silence') send(response, answer);
  }
}

function send(response: ServerResponse, answer: Exclude<Answer, 'silence'>): void {
  if ('json' in answer) respond(response, answer.status ?? 200, JSON.stringify(answer.json));
  else if ('raw' in answer) respond(response, answer.status ?? 200, answer.raw);
  else {
    response.writeHead(200, { 'content-type': 'application/x-ndjson' });
    for (const line of answer.lines) response.write(`${JSON.stringify(line)}\n`);
    if (answer.cut === true) response.destroy();
    else response.end();
  }
}

function respond(response: ServerResponse, status: number, body: string): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(body);
}

export function refusal(code: string, message: string, next: string): Refusal {
  return { error: { code, message, next } };
}

export function member(facts: Partial<MemberRow> & { readonly name: string }): MemberRow {
  return {
    role: facts.name.endsWith('/db') ? 'db' : 'app',
    peerId: `12D3KooW${facts.name.replaceAll(/[^a-z0-9]/g, '')}`,
    address: '10.0.0.11',
    state: 'alive',
    health: 'up',
    maintenance: false,
    restarting: false,
    rotation: 'in',
    reason: '',
    version: '0.1.0',
    incarnation: 3,
    services: [{ name: 'haproxy', health: 'up' }],
    tags: {},
    load: 12,
    stateForMs: 180_000,
    heardAgoMs: 400,
    certificateNotAfter: '2027-01-20T10:00:00.000Z',
    settingsDigest: '0011223344556677',
    authority: false,
    self: false,
    ...facts,
  };
}

export const MEMBERS: readonly MemberRow[] = [
  member({ name: 'app1/app', self: true, authority: true }),
  member({
    name: 'app2/app',
    address: '10.0.0.12',
    maintenance: true,
    rotation: 'drain',
    reason: 'in maintenance',
  }),
  member({ name: 'both/app', address: '10.0.0.31' }),
  member({ name: 'both/db', address: '10.0.0.31' }),
  member({
    name: 'db2/db',
    address: '10.0.0.22',
    state: 'dead',
    rotation: 'out',
    reason: 'dead, and HAProxy’s own check fails',
    heardAgoMs: 185_000,
    services: [
      { name: 'couchdb', health: 'down' },
      { name: 'haproxy', health: 'up' },
    ],
    tags: { zone: 'a' },
  }),
];

export function entry(facts: Partial<AuditEntry> & { readonly id: number }): AuditEntry {
  return {
    at: '2026-11-22T17:01:03.000Z',
    kind: 'member',
    summary: 'db2/db is dead',
    trigger: 'accused by app1/app and both/db',
    subjects: ['db2/db'],
    result: 'info',
    ...facts,
  };
}

export const STORY: readonly AuditEntry[] = [
  entry({ id: 7 }),
  entry({
    id: 8,
    at: '2026-11-22T17:01:04.000Z',
    kind: 'change',
    plugin: 'haproxy',
    summary: 'haproxy: took db2 out of db_nodes',
    trigger: 'db2/db: suspect → dead',
    changes: ['db_nodes/db2: ready → maint'],
    result: 'ok',
    durationMs: 12,
  }),
  entry({
    id: 9,
    at: '2026-11-22T17:02:00.000Z',
    kind: 'change',
    plugin: 'haproxy',
    summary: 'haproxy: reconcile failed',
    changes: ['haproxy.cfg: rewritten'],
    trigger: 'db2/db: suspect → dead',
    result: 'failed',
    error: { code: 'haproxy-config-refused', message: 'haproxy -c refuses line 12', next: 'bornemisza plan' },
  }),
];

export function status(facts: Partial<StatusAnswer> = {}): StatusAnswer {
  return {
    version: '0.1.0',
    cluster: 'shop',
    name: 'app1/app',
    role: 'app',
    peerId: '12D3KooWapp1',
    address: '10.0.0.11',
    health: 'up',
    maintenance: false,
    synced: true,
    phase: 'running',
    upMs: 3_600_000,
    counts: { alive: 4, suspect: 0, dead: 1, leaving: 0, left: 0, absent: 0 },
    restarts: [],
    checks: [{ name: 'haproxy', health: 'up', required: true, detail: '200 in 2 ms', sinceMs: 60_000 }],
    plugins: [
      {
        name: 'haproxy',
        state: 'converged',
        detail: '',
        next: '',
        lastConvergedAgoMs: 1200,
        runs: 4,
        changes: 9,
        failed: 0,
        busyMs: 120,
        seen: undefined,
        seenAgoMs: undefined,
        facts: { old: { processes: 1, connections: 40 } },
        alarms: [],
      },
      {
        name: 'bird',
        state: 'failing',
        detail: 'bird does not answer',
        next: 'systemctl start bird',
        lastConvergedAgoMs: undefined,
        runs: 3,
        changes: 0,
        failed: 0,
        busyMs: 120,
        seen: 'not announced: BIRD is not running',
        seenAgoMs: 2000,
        alarms: [],
      },
    ],
    held: [HELD],
    warnings: [{ code: 'one-authority', message: 'one authority only', next: 'admit a third node' }],
    announcing: true,
    announcingWhy: 'this node is up',
    floating: ['203.0.113.10'],
    counters: {},
    ...facts,
  };
}

export const DONE_LEAVING: readonly Progress[] = [
  { message: 'traffic: drained, 0 connections left' },
  { message: 'announcement: withdrawn' },
  { message: 'left; the machine can be deleted', done: true },
];

export const HELD = {
  code: 'landslide',
  subjects: ['db2/db', 'db3/db'],
  message: 'db2/db, db3/db vanished without a leave',
  next: 'if they are gone for good: bornemisza guards release',
};
