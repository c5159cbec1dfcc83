import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { Catalogue } from './cluster/catalogue.ts';
import { Members } from './cluster/members.ts';
import { Peruser } from './cluster/peruser.ts';
import { Seeds } from './cluster/seeds.ts';
import { Sync } from './cluster/sync.ts';
import { Distribution } from './dist/distribution.ts';
import type { Cluster } from './fabric/ask.ts';
import { repairSecurity } from './fabric/databases.ts';
import { editDocs, openDoc } from './fabric/docs.ts';
import { serveFabric } from './fabric/worker.ts';
import { Auth, hashAdmins } from './http/auth.ts';
import { Settings } from './start/settings.ts';
import { parseVmArgs, type VmArgs } from './start/vm_args.ts';
import { Files } from './store/files.ts';

/** rexi_buffer keeps at most so many messages for a node that is away. */
const maxBuffered = 2000;
/** Every so often each node sees to it that `_users` has its design document. */
const authDdocIntervalMs = 2000;

export type Log = (line: string) => void;

/** One CouchDB node: its files, its place in the mesh, its view of the cluster. HTTP is put on top of it. */
export class Node {
  readonly vm: VmArgs;
  readonly settings: Settings;
  readonly files: Files;
  readonly distribution: Distribution;
  readonly members: Members;
  readonly catalogue: Catalogue;
  readonly sync: Sync;
  readonly cluster: Cluster;
  readonly auth: Auth;
  readonly seeds: Seeds;
  readonly startedAt = Date.now();
  /** As `_system` shows it: [time, what, why?] by node. */
  readonly events: Record<string, string[][]> = {};
  readonly log: Log;
  readonly #peruser: Peruser;
  readonly #buffered = new Map<string, { op: string; args: object }[]>();
  #authTimer: NodeJS.Timeout | undefined;

  constructor(env: NodeJS.ProcessEnv, log: Log) {
    this.log = log;
    this.vm = parseVmArgs(readFileSync(env.COUCHDB_ARGS_FILE ?? '', 'utf8'));
    this.settings = new Settings((env.COUCHDB_INI_FILES ?? '').split(/\s+/).filter(Boolean));
    this.files = new Files(this.settings.get('couchdb', 'database_dir') ?? './data');
    const cookie =
      this.vm.cookie ?? readFileSync(join(env.HOME ?? homedir(), '.erlang.cookie'), 'utf8').trim();
    const events = {
      nodeup: (node: string) => this.#nodeup(node),
      nodedown: (node: string, reason: string) => this.#note(node, ['nodedown', reason]),
    };
    this.distribution = new Distribution(this.vm, cookie, events, log);
    const { distribution, files, settings } = this;
    this.members = new Members(files, distribution, settings);
    this.catalogue = new Catalogue(distribution.self, files);
    const { members, catalogue } = this;
    this.cluster = { self: distribution.self, distribution, catalogue, members, settings };
    this.sync = new Sync({ distribution, files, members, catalogue }, (db) =>
      repairSecurity(this.cluster, db, log, (node, op, args) => this.buffer(node, op, args)),
    );
    this.auth = new Auth(settings, async (name) => {
      if (!catalogue.has('_users')) return undefined;
      const lookup = await openDoc(this.cluster, '_users', `org.couchdb.user:${name}`, {}).catch(
        () => undefined,
      );
      return lookup !== undefined && 'found' in lookup ? lookup.found.body : undefined;
    });
    this.seeds = new Seeds(this.cluster, files);
    this.seeds.serve();
    this.#peruser = new Peruser(this.cluster, files, (node, op, args) => this.buffer(node, op, args));
    serveFabric({ distribution, files, catalogue, settings });
  }

  /** @throws Error when there is no admin: the real one refuses to start too */
  async start(): Promise<void> {
    if (Object.keys(this.settings.section('admins')).length === 0) throw new Error('No Admin Account Found');
    await hashAdmins(this.settings);
    if (this.settings.get('couchdb', 'uuid') === undefined) {
      await this.settings.set('couchdb', 'uuid', randomBytes(16).toString('hex'), true);
    }
    this.files.onOpen((copy) => copy.changed.on('change', () => this.sync.changed(copy.name)));
    await this.files.create('_users');
    await this.catalogue.start();
    await this.distribution.listen();
    await this.members.start((node) => {
      if (this.distribution.isConnected(node)) this.sync.peerIsUp(node);
    });
    this.settings.watch((section, key) => {
      if (section === 'couchdb' && key === 'maintenance_mode') this.sync.pushAll();
    });
    await this.seeds.start();
    this.#peruser.start();
    this.#authTimer = setInterval(() => void this.#ensureAuthDdoc(), authDdocIntervalMs).unref();
  }

  async stop(): Promise<void> {
    clearInterval(this.#authTimer);
    this.#peruser.stop();
    this.seeds.stop();
    this.sync.stop();
    this.members.stop();
    await this.distribution.close();
    await this.files.flushAll();
  }

  /** Keeps a message for a node that could not be asked until it is back. */
  buffer(node: string, op: string, args: object): void {
    if (this.distribution.isConnected(node)) return;
    const list = this.#buffered.get(node) ?? [];
    if (list.length < maxBuffered) list.push({ op, args });
    this.#buffered.set(node, list);
  }

  #nodeup(node: string): void {
    this.#note(node, ['nodeup']);
    this.sync.peerIsUp(node);
    const list = this.#buffered.get(node) ?? [];
    this.#buffered.delete(node);
    for (const { op, args } of list) void this.distribution.call(node, op, args).catch(() => undefined);
  }

  #note(node: string, event: string[]): void {
    const list = (this.events[node] ??= []);
    list.push([`${new Date().toISOString().slice(0, 19)}Z`, ...event]);
    if (list.length > 50) list.shift();
    this.log(`${event.join(' ')} ${node}`);
  }

  /** The design document is the same everywhere, revision included: no conflict whoever writes it. */
  async #ensureAuthDdoc(): Promise<void> {
    if (!this.catalogue.has('_users')) return;
    const lookup = await openDoc(this.cluster, '_users', '_design/_auth', {}).catch(() => undefined);
    if (lookup === undefined || !('missing' in lookup) || lookup.missing === 'deleted') return;
    const body = {
      language: 'javascript',
      validate_doc_update: 'function(newDoc, oldDoc, userCtx, secObj) {}',
    };
    await editDocs(this.cluster, '_users', [{ id: '_design/_auth', deleted: false, body }]).catch(
      () => undefined,
    );
  }
}
