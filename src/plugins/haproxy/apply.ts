import { fileError } from '../../host/files.ts';
import { PluginError } from '../contract.ts';
import { BACKUPS, type HaproxyFiles, isNamed } from './files.ts';
import type { Observer } from './observe.ts';
import { type HaproxyChange, planRuntime, type Running } from './plan.ts';
import {
  backendsIn,
  CONFIG_FILE,
  NO_STATE,
  REVOKED_FILE,
  type Rendered,
  STATE_FILE,
  serversIn,
} from './rendered.ts';
import { notRunning, parseInfo, parseProcesses, sessionsFrom } from './runtime.ts';
import type { Sockets } from './sockets.ts';
import { alertsIn, blamedFor, statesFor } from './snippets.ts';
import { configIn, type Validator } from './validate.ts';

/** What `undo` needs: the files and the servers as they were. */
export interface HaproxyCheckpoint {
  readonly files: ReadonlyMap<string, string | undefined>;
  readonly running: Running | undefined;
}

/** A reload is visible after 15–67 ms; many certificates or a loaded machine take longer. */
const RELOAD_TIMEOUT_MS = 10_000;

interface StepsDependencies {
  readonly instance: 'app' | 'db';
  readonly files: HaproxyFiles;
  readonly sockets: Sockets;
  readonly observer: Observer;
  readonly validator: Validator;
  readonly heartbeat: ((signal: AbortSignal) => Promise<void>) | undefined;
}

/** The changes that the running process accepts without a new file. */
const TOLD: ReadonlySet<HaproxyChange['kind']> = new Set([
  'server-state',
  'server-down',
  'server-check',
  'server-weight',
  'server-address',
  'server-remove',
  'server-delete',
  'frontend-open',
  'revoke',
  'unrevoke',
]);

/**
 * Whether the process can get the change before the file is checked, which takes a second on a busy host. Not
 * where a change needs the file, and not where a server is added: additions come before removals.
 */
function toldFirst(changes: readonly HaproxyChange[]): boolean {
  return (
    changes.some(({ kind }) => TOLD.has(kind)) &&
    changes.every(({ kind }) => kind === 'file' || TOLD.has(kind))
  );
}

/** Makes the changes one by one, and undoes them. */
export class Steps {
  readonly #instance: 'app' | 'db';
  readonly #files: HaproxyFiles;
  readonly #sockets: Sockets;
  readonly #observer: Observer;
  readonly #validator: Validator;
  readonly #heartbeat: StepsDependencies['heartbeat'];
  readonly #lingering = new Set<string>();
  /** What the last process that was to be replaced knew of its servers. */
  #states = '';

  constructor({ instance, files, sockets, observer, validator, heartbeat }: StepsDependencies) {
    this.#instance = instance;
    this.#files = files;
    this.#sockets = sockets;
    this.#observer = observer;
    this.#validator = validator;
    this.#heartbeat = heartbeat;
  }

  /** Servers that could not be deleted yet, as they had connections. */
  get lingering(): ReadonlySet<string> {
    return this.#lingering;
  }

  /** See {@link toldFirst}. A change that was refused before would be sent and undone at each new try. */
  tellsFirst(changes: readonly HaproxyChange[]): boolean {
    return toldFirst(changes) && !this.#validator.wasRefused(changes);
  }

  async checkpoint(changes: readonly HaproxyChange[], signal: AbortSignal): Promise<HaproxyCheckpoint> {
    const files = new Map<string, string | undefined>();
    for (const change of changes) {
      if (change.kind === 'file' && !isNamed(change.name))
        files.set(change.name, await this.#files.read(change.name));
    }
    // A command that is sent first follows the observation at once.
    const running = this.tellsFirst(changes) ? this.#observer.seen : await this.#observer.running(signal);
    return { files, running };
  }

  async apply(
    changes: readonly HaproxyChange[],
    signal: AbortSignal,
    made: (change: HaproxyChange) => void,
  ): Promise<void> {
    const isFirst = !this.#validator.hasProof && this.tellsFirst(changes);
    const first = isFirst ? changes.filter(({ kind }) => kind !== 'file') : [];
    // What is told first needs no reload, and must not wait for a file.
    const former = isFirst ? '' : ((await this.#files.read(CONFIG_FILE)) ?? '');
    try {
      for (const change of first) if ((await this.#make(change, signal)) !== 'refused') made(change);
      if (first.length > 0) await this.#validator.validate(changes, signal);
      for (const change of changes)
        if (!first.includes(change) && (await this.#make(change, signal)) !== 'refused') made(change);
    } catch (error) {
      throw error instanceof PluginError
        ? (this.#blamed(changes, former, error) ?? error)
        : fileError(error, this.#files.directory);
    } finally {
      await this.#validator.discard();
    }
    await this.#files.prune();
  }

  /** A snippet that passed the check can still keep a process from starting, e.g. as another program has its port. */
  #blamed(changes: readonly HaproxyChange[], former: string, error: PluginError): PluginError | undefined {
    const { snippets, content: config = '' } = configIn(changes) ?? {};
    if (error.code !== RELOAD_FAILED || snippets === undefined) return undefined;
    const said = alertsIn(error.cause instanceof Error ? error.cause.message : '');
    const path = this.#files.path(CONFIG_FILE);
    return this.#validator.refuse(
      blamedFor(snippets, { former, config, said, path, unit: this.#sockets.unit }),
    );
  }

  async undo(checkpoint: HaproxyCheckpoint, signal: AbortSignal): Promise<void> {
    for (const [name, content] of checkpoint.files) {
      // Where nothing was before there is nothing good to go back to, and what is there passed HAProxy's own check.
      if (content !== undefined) await this.#files.write(name, content);
    }
    const before = checkpoint.running;
    if (before === undefined || before.structure === '') return;
    const now = await this.#observer.running(signal);
    const config = (await this.#files.read(CONFIG_FILE)) ?? '';
    const lastGood: Rendered = {
      files: [],
      structure: before.structure,
      // The former state, which may differ from both the file and the desired state.
      servers: serversIn(config).map((server) => {
        const was = before.servers.find(
          ({ backend, name }) => backend === server.backend && name === server.name,
        );
        if (was === undefined) return server;
        return {
          ...server,
          address: was.address,
          port: was.port,
          duty: was.maint ? 'maint' : was.drain ? 'drain' : 'ready',
        };
      }),
      frontends: [...before.frontends.keys()],
      backends: backendsIn(config),
      snippets: [],
      revoked: before.revoked.map((mark) => ({ mark, address: undefined })),
    };
    // After a failed reload of 2.4 nobody answers at the socket; the master's next process makes it again.
    if (now === undefined) {
      if (await this.#observer.hasNoWorker(signal)) await this.#replace(before.pid, lastGood, signal);
    } else if (now.structure !== before.structure) await this.#reload(lastGood, signal);
    else for (const change of planRuntime(lastGood, now)) await this.#make(change, signal);
  }

  async #make(change: HaproxyChange, signal: AbortSignal): Promise<undefined | 'refused'> {
    switch (change.kind) {
      case 'file': {
        const staged = change.name === CONFIG_FILE ? this.#validator.take() : undefined;
        if (staged === undefined) await this.#files.write(change.name, change.content);
        else await staged.commit({ backups: BACKUPS });
        return undefined;
      }
      case 'start':
        // The checked file waits for the unit.
        if ((await this.#observer.running(signal)) === undefined)
          throw notRunning(this.#sockets.stats, this.#sockets.unit, { keepsChanges: true });
        return undefined;
      case 'reload':
        await this.#reload(change.rendered, signal);
        return undefined;
      case 'site':
        if (!(await this.#swapSite(change, signal))) await this.#reload(change.rendered, signal);
        return undefined;
      case 'frontend-open':
        await this.#sockets.tell(`enable frontend ${change.frontend}`, signal);
        return undefined;
      case 'revoke':
        await this.#sockets.tell(`add acl ${this.#files.path(REVOKED_FILE)} ${change.mark}`, signal);
        if (change.address !== undefined) await this.#cut(change.address, signal);
        return undefined;
      case 'unrevoke':
        await this.#sockets.tell(`del acl ${this.#files.path(REVOKED_FILE)} ${change.mark}`, signal);
        return undefined;
      case 'server-add':
        await this.#add(change, signal);
        return undefined;
      case 'server-address': {
        const { backend, name, address, port } = change.server;
        await this.#sockets.ask(`set server ${backend}/${name} addr ${address} port ${port}`, signal);
        return undefined;
      }
      case 'server-state':
        await this.#sockets.tell(`set server ${change.backend}/${change.name} state ${change.admin}`, signal);
        if (change.fresh)
          await this.#sockets.tell(`set server ${change.backend}/${change.name} health up`, signal);
        if (change.cut)
          await this.#sockets.tell(`shutdown sessions server ${change.backend}/${change.name}`, signal);
        return undefined;
      case 'server-down':
        await this.#sockets.tell(`set server ${change.backend}/${change.name} health down`, signal);
        return undefined;
      case 'server-check':
        await this.#sockets.tell(`enable health ${change.backend}/${change.name}`, signal);
        return undefined;
      case 'server-weight':
        await this.#sockets.tell(`set server ${change.backend}/${change.name} weight 100%`, signal);
        return undefined;
      case 'server-remove':
        await this.#sockets.tell(`set server ${change.backend}/${change.name} state maint`, signal);
        if (change.deletes) await this.#delete(change, signal);
        return undefined;
      case 'server-delete':
        return (await this.#delete(change, signal)) ? undefined : 'refused';
    }
  }

  /**
   * The process keeps the path that it was started with; the file that the configuration names now is there for the
   * next one. A chain that is longer than its buffer (16 kB; 128 kB from 3.4 on) is refused, as is what it cannot load.
   */
  async #swapSite(
    { file, content }: Extract<HaproxyChange, { kind: 'site' }>,
    signal: AbortSignal,
  ): Promise<boolean> {
    const lines = content.split('\n').filter((line) => line.trim() !== '');
    const set = await this.#sockets.give(`set ssl cert ${file}`, lines.join('\n'), signal).catch(() => '');
    const committed = /Transaction (created|updated)/.test(set)
      ? await this.#sockets.ask(`commit ssl cert ${file}`, signal).catch(() => '')
      : '';
    if (committed.includes('Success')) return true;
    await this.#sockets.ask(`abort ssl cert ${file}`, signal).catch(() => '');
    return false;
  }

  /** HAProxy refuses while connections are open: then the watch says when the last one has ended. */
  async #delete({ backend, name }: { backend: string; name: string }, signal: AbortSignal): Promise<boolean> {
    const server = `${backend}/${name}`;
    const answer = await this.#sockets.ask(`del server ${server}`, signal);
    const deleted = /deleted|No such server/.test(answer);
    if (deleted) this.#lingering.delete(server);
    else this.#lingering.add(server);
    return deleted;
  }

  async #add(change: Extract<HaproxyChange, { kind: 'server-add' }>, signal: AbortSignal): Promise<void> {
    const { backend, name, address, port, options } = change.server;
    const answer = await this.#sockets.ask(
      `add server ${backend}/${name} ${address}:${port} ${options}`,
      signal,
    );
    // E.g. a certificate that this process has not loaded. The file already has the server.
    if (!answer.includes('New server registered')) return await this.#reload(change.rendered, signal);
    if (/(^| )check( |$)/.test(options)) await this.#sockets.tell(`enable health ${backend}/${name}`, signal);
    if (change.admin !== 'maint')
      await this.#sockets.tell(`set server ${backend}/${name} state ${change.admin}`, signal);
  }

  /**
   * Lets the master start a new worker with the file as it is, hands it the health that the old one knew, and
   * brings it to the wanted states.
   */
  async #reload(rendered: Rendered, signal: AbortSignal): Promise<void> {
    const { pid } = parseInfo(await this.#sockets.ask('show info', signal), this.#instance);
    this.#states = await this.#sockets.ask('show servers state', signal);
    await this.#replace(pid, rendered, signal);
  }

  async #replace(oldPid: number, rendered: Rendered, signal: AbortSignal): Promise<void> {
    const reloads = await this.#reloadCount(signal);
    const config = (await this.#files.read(CONFIG_FILE)) ?? '';
    await this.#files.write(STATE_FILE, `${statesFor(this.#states, config, rendered.backends)}\n`);
    try {
      await this.#askForReload(signal);
      await this.#awaitWorker(rendered.structure, oldPid, reloads, signal);
    } finally {
      // A later start must not use old states.
      await this.#files.write(STATE_FILE, NO_STATE);
    }
    await this.#heartbeat?.(signal);
    const now = await this.#observer.running(signal);
    if (now === undefined) throw reloadFailed(this.#sockets.unit, 'it went away');
    // The file has this server, so it exists; another reload would not end.
    for (const change of planRuntime(rendered, now))
      if (change.kind !== 'server-add') await this.#make(change, signal);
  }

  /**
   * From 2.7 on the master answers when the reload is over, with `Success=` and what the new process printed; before,
   * it answers nothing and at once. A connection that breaks meanwhile tells nothing: the new worker does.
   */
  async #askForReload(signal: AbortSignal): Promise<void> {
    const answer = await this.#sockets
      .askMaster('reload', { signal, timeoutMs: RELOAD_TIMEOUT_MS })
      .catch((error: unknown) => {
        if (error instanceof PluginError && error.code === 'haproxy-silent') return '';
        throw error;
      });
    if (/^Success=0$/m.test(answer))
      throw reloadFailed(this.#sockets.unit, 'the new process refused it', new Error(answer.slice(0, 4096)));
  }

  /** 2.6's master answers nothing to `reload`: the number of reloads and the new worker's answers tell. */
  async #awaitWorker(structure: string, oldPid: number, reloads: number, signal: AbortSignal): Promise<void> {
    const deadline = performance.now() + RELOAD_TIMEOUT_MS;
    for (let pauseMs = 10; performance.now() < deadline; pauseMs = Math.min(pauseMs * 1.5, 100)) {
      await pause(pauseMs, signal);
      // Both sockets refuse for some milliseconds while the processes change places.
      const processes = await this.#sockets
        .askMaster('show proc', { signal, timeoutMs: 500 })
        .then(parseProcesses, () => []);
      const master = processes.find(({ kind }) => kind === 'master');
      if (master !== undefined && master.reloads > reloads && (master.failed ?? 0) > 0) {
        throw reloadFailed(this.#sockets.unit, 'the new process refused it');
      }
      const info = await this.#sockets.ask('show info', signal, 500).then(
        (text) => parseInfo(text, this.#instance),
        () => undefined,
      );
      if (info !== undefined && info.pid !== oldPid && info.structure === structure) return;
    }
    throw reloadFailed(this.#sockets.unit, `no new process answered within ${RELOAD_TIMEOUT_MS} ms`);
  }

  async #reloadCount(signal: AbortSignal): Promise<number> {
    const processes = parseProcesses(await this.#sockets.askMaster('show proc', { signal }));
    return processes.find(({ kind }) => kind === 'master')?.reloads ?? 0;
  }

  /** Ends the sessions from an address in the doors: of this worker and of those that older reloads left behind. */
  async #cut(address: string, signal: AbortSignal): Promise<void> {
    const doors = this.#instance === 'app' ? ['door'] : ['app_door', 'peer_door'];
    const processes = await this.#sockets.askMaster('show proc', { signal }).then(parseProcesses, () => []);
    const old = processes.filter(({ kind }) => kind === 'old-worker').map(({ pid }) => pid);
    const each: ((command: string) => Promise<string>)[] = [
      (command) => this.#sockets.ask(command, signal),
      ...old.map((pid) => (command: string) => this.#sockets.askMaster(`@!${pid} ${command}`, { signal })),
    ];
    for (const tell of each) {
      const sessions = sessionsFrom(await tell('show sess').catch(() => ''), address, doors);
      for (const id of sessions) await tell(`shutdown session ${id}`).catch(() => '');
    }
  }
}

function pause(durationMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      clearTimeout(timer);
      reject(new Error('the daemon is stopping'));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', abort);
      resolve();
    }, durationMs);
    signal.addEventListener('abort', abort, { once: true });
  });
}

const RELOAD_FAILED = 'haproxy-reload-failed';

/** @param cause with what HAProxy said */
function reloadFailed(unit: string, why: string, cause?: Error): PluginError {
  return new PluginError({
    cause,
    code: 'haproxy-reload-failed',
    message: `HAProxy did not take the new configuration: ${why}; the last good one is restored`,
    next: `see the reason: \`journalctl -u ${unit}\``,
    outcome: 'retry',
  });
}
