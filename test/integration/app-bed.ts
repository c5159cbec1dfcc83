/**
 * The app tier on one machine: a CouchDB node (the release named by LAB_COUCHDB, or the stand-in), a real SMTP server
 * that keeps what it takes, and as many nodes of the app tier as a test asks for, each a process of its own.
 */
import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SMTPServer } from 'smtp-server';
import { KeyRing } from '../../src/app/accounts/keys.ts';
import { mailDocumentId } from '../../src/app/accounts/names.ts';
import type { AppSecrets } from '../../src/app/config.ts';
import { endChild } from '../support/end-child.ts';
import { freePort } from '../support/free-port.ts';
import { until } from '../support/until.ts';
import { spawnWithUs } from '../support/with-us.ts';

const RELEASE = process.env['LAB_COUCHDB'] ?? join(import.meta.dirname, '..', 'standin', 'couchdb');
const ROOT = join(import.meta.dirname, '..', '..');
const SOURCE = join(ROOT, 'src/app/main.ts');
const PATIENCE_MS = 120_000;
export const ORIGIN = 'https://notes.test';
const ADMIN = { name: 'admin', password: 'right-password' };
const APP = { user: 'app', password: 'app-password-of-32-letters-000000' };

export interface Mail {
  readonly to: string;
  readonly text: string;
  /** The token of its link; undefined where it has none. */
  readonly token: string | undefined;
}

/** Answers of one node, as a browser with a cookie jar gets them. */
export class Browser {
  readonly #port: () => number;
  readonly #cookies = new Map<string, string>();

  constructor(port: () => number) {
    this.#port = port;
  }

  get cookie(): string {
    return [...this.#cookies].map(([name, value]) => `${name}=${value}`).join('; ');
  }

  /** The same cookies at another node. */
  at(port: number): Browser {
    const other = new Browser(() => port);
    for (const [name, value] of this.#cookies) other.#cookies.set(name, value);
    return other;
  }

  async ask(
    method: string,
    path: string,
    body?: unknown,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<{ status: number; body: Record<string, unknown>; headers: Headers }> {
    const answer = await fetch(`http://127.0.0.1:${this.#port()}${path}`, {
      method,
      redirect: 'manual',
      headers: {
        origin: ORIGIN,
        'sec-fetch-site': 'same-origin',
        cookie: this.cookie,
        ...(body !== undefined && { 'content-type': 'application/json' }),
        ...headers,
      },
      signal: AbortSignal.timeout(PATIENCE_MS),
      ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    });
    for (const line of answer.headers.getSetCookie()) {
      const [name = '', value = ''] = (line.split(';')[0] ?? '').split('=');
      if (value === '') this.#cookies.delete(name);
      else this.#cookies.set(name, value);
    }
    const text = await answer.text();
    return { status: answer.status, body: parse(text), headers: answer.headers };
  }
}

function basic({ name, password }: { readonly name: string; readonly password: string }): string {
  return `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`;
}

function parse(text: string): Record<string, unknown> {
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    return { text };
  }
}

/** One node of the app tier. */
export class AppNode {
  readonly port: number;
  readonly #file: string;
  readonly #program: readonly string[];
  readonly #environment: NodeJS.ProcessEnv;
  #child: ChildProcess | undefined;
  #output = '';

  constructor(
    port: number,
    file: string,
    { program, environment }: { program: readonly string[]; environment: NodeJS.ProcessEnv },
  ) {
    this.port = port;
    this.#file = file;
    this.#program = program;
    this.#environment = environment;
  }

  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined) throw new Error('this node does not run');
    return pid;
  }

  get output(): string {
    return this.#output;
  }

  async start(): Promise<void> {
    const child = spawnWithUs(process.execPath, [...this.#program, this.#file], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, ...this.#environment },
    });
    this.#child = child;
    child.stderr.on('data', (part: Buffer) => {
      this.#output += part.toString();
    });
    await until(async () => (await fetch(`http://127.0.0.1:${this.port}/healthz`)).ok, {
      deadlineMs: PATIENCE_MS,
      what: `the app tier on port ${this.port}: ${this.#output}`,
    });
  }

  async end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child !== undefined) await endChild(child, signal);
  }
}

export class AppBed {
  readonly mails: Mail[] = [];
  /** The SMTP server refuses mail while this is set. */
  refuseMail = false;
  secrets: AppSecrets;
  readonly nodes: AppNode[] = [];
  readonly couchPort: number;
  readonly #directory: string;
  #couch: ChildProcess | undefined;
  #smtp: SMTPServer | undefined;
  #smtpPort = 0;

  private constructor(directory: string, couchPort: number) {
    this.#directory = directory;
    this.couchPort = couchPort;
    this.secrets = { keys: [{ id: 'k1', secret: randomBytes(32).toString('hex') }], database: APP };
  }

  static async start(): Promise<AppBed> {
    const directory = await mkdtemp(join(tmpdir(), 'bornemisza-app-'));
    const bed = new AppBed(directory, await freePort());
    await bed.#startCouch();
    await bed.#startSmtp();
    return bed;
  }

  /**
   * @param program what Node.js is started with; default: the app tier's source
   * @param more.databasePort where it finds the databases; default: CouchDB itself
   */
  async addNode(
    settings = '',
    program: readonly string[] = [SOURCE],
    {
      databasePort = this.couchPort,
      environment = {},
    }: { databasePort?: number; environment?: NodeJS.ProcessEnv } = {},
  ): Promise<AppNode> {
    const port = await freePort();
    const file = join(this.#directory, `accounts-${port}.toml`);
    const secrets = await this.#writeSecrets();
    await mkdir(join(this.#directory, 'web'), { recursive: true });
    await writeFile(
      file,
      `public_url = "${ORIGIN}"
site_name = "Notes"
port = ${port}
database_url = "http://127.0.0.1:${databasePort}"
secrets_file = "${secrets}"
operator_socket = "${this.operatorSocket(port)}"
${settings.includes('web_root') ? '' : `web_root = "${join(this.#directory, 'web')}"`}
${settings}
[mail]
from = "notes@notes.test"
smtp_url = "smtp://127.0.0.1:${this.#smtpPort}"
smtp_tls = "off"
timeout_ms = 5000
`,
    );
    const node = new AppNode(port, file, { program, environment });
    this.nodes.push(node);
    await node.start();
    return node;
  }

  /** Where the daemon of that node would ask. */
  operatorSocket(port: number): string {
    return join(this.#directory, `operator-${port}.sock`);
  }

  async #writeSecrets(): Promise<string> {
    const file = join(this.#directory, 'secrets.json');
    await writeFile(file, JSON.stringify(this.secrets), { mode: 0o600 });
    return file;
  }

  /** The cluster makes another key, as after the removal of an app node. */
  async addKey(): Promise<void> {
    const { keys } = this.secrets;
    const key = { id: `k${keys.length + 1}`, secret: randomBytes(32).toString('hex') };
    this.secrets = { ...this.secrets, keys: [...keys, key] };
    await this.#writeSecrets();
  }

  browser(node: AppNode): Browser {
    return new Browser(() => node.port);
  }

  /** The newest mail to an address, once it is there. */
  async mailTo(address: string, after = 0): Promise<Mail> {
    return until(
      () => this.mails.slice(after).findLast(({ to }) => to.toLowerCase() === address.toLowerCase()),
      {
        deadlineMs: PATIENCE_MS,
        what: `mail to ${address}`,
      },
    );
  }

  /** Registers through the mailed link. */
  async register(browser: Browser, email: string, password: string): Promise<void> {
    const before = this.mails.length;
    const asked = await browser.ask('POST', '/api/registrations', { email });
    if (asked.status !== 202) throw new Error(`registration answers ${asked.status}`);
    const { token } = await this.mailTo(email, before);
    const made = await browser.ask('POST', '/api/accounts', { token, password });
    if (made.status !== 201)
      throw new Error(`the account answers ${made.status} ${JSON.stringify(made.body)}`);
  }

  /** The keys of the app tier, for what a test signs itself. */
  get keys(): KeyRing {
    return new KeyRing(
      this.secrets.keys.map(({ id, secret }) => ({ id, secret: Buffer.from(secret, 'hex') })),
    );
  }

  /** As if no mail had gone to an address: the next one needs no wait. */
  async forgetMails(address: string): Promise<void> {
    const path = `/userdb-617070/${encodeURIComponent(mailDocumentId(this.keys, address))}`;
    const { body } = await this.couch('GET', path);
    await this.couch('DELETE', `${path}?rev=${(body as Record<string, string>)['_rev']}`);
  }

  /** CouchDB itself, as its administrator. */
  async couch(
    method: string,
    path: string,
    body?: unknown,
    as = ADMIN,
  ): Promise<{ status: number; body: unknown }> {
    const answer = await fetch(`http://127.0.0.1:${this.couchPort}${path}`, {
      method,
      headers: {
        authorization: basic(as),
        'content-type': 'application/json',
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    return { status: answer.status, body: await answer.json() };
  }

  /** Headers of CouchDB's administrator. */
  get administrator(): Readonly<Record<string, string>> {
    return { authorization: basic(ADMIN) };
  }

  get couchPid(): number {
    const pid = this.#couch?.pid;
    if (pid === undefined) throw new Error('CouchDB does not run');
    return pid;
  }

  async close(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.end('SIGKILL')));
    this.#couch?.kill('SIGKILL');
    if (this.#couch !== undefined && this.#couch.exitCode === null && this.#couch.signalCode === null)
      await once(this.#couch, 'exit');
    await new Promise<void>((resolve) => {
      if (this.#smtp === undefined) resolve();
      else this.#smtp.close(() => resolve());
    });
    await rm(this.#directory, { recursive: true, force: true });
  }

  async until(condition: () => Promise<boolean>, what: string): Promise<void> {
    await until(condition, { deadlineMs: PATIENCE_MS, what });
  }

  async stopCouch(): Promise<void> {
    const couch = this.#couch;
    if (couch === undefined) return;
    couch.kill('SIGKILL');
    await once(couch, 'exit');
    this.#couch = undefined;
  }

  async #startCouch(): Promise<void> {
    const home = join(this.#directory, 'couch');
    await mkdir(join(home, 'data'), { recursive: true });
    const distribution = await freePort();
    const ini = join(home, 'local.ini');
    await writeFile(
      ini,
      `[couchdb]
database_dir = ${join(home, 'data')}
view_index_dir = ${join(home, 'data')}
users_db_security_editable = true
[chttpd]
port = ${this.couchPort}
bind_address = 127.0.0.1
[chttpd_auth]
upgrade_hash_on_auth = false
[couch_peruser]
enable = true
delete_dbs = true
[cluster]
n = 1
q = 1
[admins]
${ADMIN.name} = ${ADMIN.password}
[log]
writer = file
file = ${join(home, 'couch.log')}
`,
    );
    const args = join(home, 'vm.args');
    await writeFile(
      args,
      `-name couchdb@127.0.0.1
-setcookie ${randomBytes(16).toString('hex')}
-kernel inet_dist_listen_min ${distribution} inet_dist_listen_max ${distribution}
-start_epmd false
-erl_epmd_port ${distribution}
+Bd
-noinput
`,
    );
    const defaults = join(RELEASE, 'etc', 'default.ini');
    const env = {
      PATH: process.env['PATH'],
      HOME: home,
      COUCHDB_ARGS_FILE: args,
      COUCHDB_INI_FILES: process.env['LAB_COUCHDB'] === undefined ? ini : `${defaults} ${ini}`,
    };
    this.#couch = spawnWithUs(join(RELEASE, 'bin', 'couchdb'), [], { env, stdio: 'ignore' });
    await until(async () => (await fetch(`http://127.0.0.1:${this.couchPort}/_up`)).ok, {
      deadlineMs: PATIENCE_MS,
      what: 'CouchDB',
    });
    await this.#prepareUsers();
  }

  /** What role db sets up on a cluster. */
  async #prepareUsers(): Promise<void> {
    await this.couch('PUT', '/_users');
    await this.couch('PUT', '/_users/_security', {
      admins: { names: [], roles: ['_admin', 'bornemisza-app'] },
      members: { names: [], roles: ['_admin', 'bornemisza-app', 'account'] },
    });
    const user = { type: 'user', name: APP.user, roles: ['bornemisza-app'], password: APP.password };
    await this.couch('PUT', `/_users/org.couchdb.user:${APP.user}`, user);
    const own = `/userdb-${Buffer.from(APP.user).toString('hex')}`;
    await until(async () => (await this.couch('GET', own)).status === 200, {
      deadlineMs: PATIENCE_MS,
      what: 'the database of account app',
    });
  }

  async #startSmtp(): Promise<void> {
    this.#smtpPort = await freePort();
    this.#smtp = new SMTPServer({
      authOptional: true,
      disabledCommands: ['STARTTLS', 'AUTH'],
      disableReverseLookup: true,
      onRcptTo: (_address, _session, callback) =>
        callback(this.refuseMail ? new Error('no mail today') : null),
      onData: (stream, session, callback) => {
        const parts: Buffer[] = [];
        stream.on('data', (part: Buffer) => parts.push(part));
        stream.on('end', () => {
          this.#keep(Buffer.concat(parts).toString(), session.envelope.rcptTo[0]?.address ?? '');
          callback();
        });
      },
    });
    const listening = new Promise<void>((resolve, reject) => {
      this.#smtp?.once('error', reject);
      this.#smtp?.listen(this.#smtpPort, '127.0.0.1', () => resolve());
    });
    await listening;
  }

  #keep(raw: string, to: string): void {
    // Quoted-printable: soft line breaks, and `=` itself.
    const text = raw.replaceAll(/=\r?\n/g, '').replaceAll('=3D', '=');
    const token = /\/[a-z-]+#([\w.-]+)/.exec(text)?.[1];
    this.mails.push({ to, text, token });
  }
}
