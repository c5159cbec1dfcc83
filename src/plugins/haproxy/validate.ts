import { networkInterfaces } from 'node:os';
import { runCommand } from '../../host/command.ts';
import { type Staged, stageFile } from '../../host/files.ts';
import { listeningSockets } from '../../host/listening-sockets.ts';
import { PluginError } from '../contract.ts';
import { FILE_MODE, type HaproxyFiles, isNamed } from './files.ts';
import type { HaproxyChange } from './plan.ts';
import { CONFIG_FILE, NO_STATE, REVOKED_FILE, STATE_FILE } from './rendered.ts';
import { unbindable } from './snippet-binds.ts';
import { siteFileIn, siteProof } from './site-certificate.ts';
import {
  alarmOf,
  alertsIn,
  type Complaint,
  complaintIn,
  refusedOf,
  spoken,
  type UsedSnippet,
  withSnippets,
} from './snippets.ts';

/** `haproxy -c` takes 20 ms; a loaded machine may take long. */
const CHECK_TIMEOUT_MS = 15_000;
/** Certificates for the site that were refused; a founder tries a few. */
const MAX_REFUSED = 16;
/** The same of snippets, of which there are more. */
const MAX_REFUSED_SNIPPETS = 128;

/** What HAProxy refuses of what the founder gives, and why: the certificates of the site, and keys of snippets. */
export interface Refusals {
  readonly sites: ReadonlyMap<string, string>;
  readonly snippets: ReadonlyMap<string, Complaint>;
}

/** Lets HAProxy check a new configuration, and keeps it staged until it is put in its place. */
export class Validator {
  readonly #instance: 'app' | 'db';
  readonly #binary: string;
  readonly #files: HaproxyFiles;
  readonly #refused = new Map<string, string>();
  readonly #refusedSnippets = new Map<string, Complaint>();
  #staged: Staged | undefined;
  /** The configuration that was refused last. */
  #refusedConfig: string | undefined;

  constructor(instance: 'app' | 'db', binary: string, files: HaproxyFiles) {
    this.#instance = instance;
    this.#binary = binary;
    this.#files = files;
  }

  get refusals(): Refusals {
    return { sites: this.#refused, snippets: this.#refusedSnippets };
  }

  /** Whether a configuration is checked and not in its place yet. */
  get hasProof(): boolean {
    return this.#staged !== undefined;
  }

  wasRefused(changes: readonly HaproxyChange[]): boolean {
    const { content } = configIn(changes) ?? {};
    return content !== undefined && content === this.#refusedConfig;
  }

  /** Writes the files that the new configuration names (nobody uses them yet), then lets HAProxy check it. */
  async validate(changes: readonly HaproxyChange[], signal: AbortSignal): Promise<void> {
    await this.discard();
    const config = configIn(changes);
    if (config === undefined) return;
    const unable = await this.#unbindable(config, changes);
    if (unable !== undefined) throw unable;
    for (const change of changes) {
      if (change.kind === 'file' && isNamed(change.name))
        await this.#files.write(change.name, change.content);
    }
    if ((await this.#files.read(REVOKED_FILE)) === undefined) await this.#files.write(REVOKED_FILE, '');
    if ((await this.#files.read(STATE_FILE)) === undefined) await this.#files.write(STATE_FILE, NO_STATE);
    this.#staged = await stageFile(this.#files.path(CONFIG_FILE), config.content, {
      mode: FILE_MODE,
      suffix: '.cfg',
    });
    try {
      await this.#check(this.#staged.stagedPath, signal);
      this.#refusedConfig = undefined;
    } catch (error) {
      this.#refusedConfig = config.content;
      await this.discard();
      throw (
        (await this.#siteRefusal(config.content, signal)) ??
        (await this.#snippetRefusal(config, signal)) ??
        error
      );
    }
  }

  /** The last checked configuration; the caller puts it in its place. */
  take(): Staged | undefined {
    const staged = this.#staged;
    this.#staged = undefined;
    return staged;
  }

  async discard(): Promise<void> {
    await this.take()?.discard();
  }

  /** Checks the one optional input alone: if it is the cause, the next run continues without it. */
  async #siteRefusal(config: string, signal: AbortSignal): Promise<PluginError | undefined> {
    const name = siteFileIn(config);
    const pem = name === undefined ? undefined : await this.#files.read(name);
    if (name === undefined || pem === undefined) return undefined;
    const alone = await stageFile(this.#files.path('site'), siteProof(this.#files.path(name)), {
      mode: FILE_MODE,
      suffix: '.cfg',
    });
    try {
      await this.#check(alone.stagedPath, signal);
      return undefined;
    } catch (error) {
      if (!(error instanceof PluginError) || error.code !== 'haproxy-config-refused') return undefined;
      if (this.#refused.size >= MAX_REFUSED) this.#refused.clear();
      this.#refused.set(pem, error.message.replace(/^[^:]*: /, ''));
      return new PluginError({
        code: 'site-certificate-refused',
        message: `HAProxy refuses the site’s certificate: ${this.#refused.get(pem) ?? ''}`,
        next:
          'put another certificate, chain and key into the file of edge.certificate, then `systemctl ' +
          'reload bornemisza@app`; everything else is tried again without it',
        outcome: 'retry',
      });
    } finally {
      await alone.discard();
    }
  }

  /** If it is good without them, each is tried: the next run continues without those that HAProxy refuses. */
  async #snippetRefusal(
    { content, snippets = [] }: Extract<HaproxyChange, { kind: 'file' }>,
    signal: AbortSignal,
  ): Promise<PluginError | undefined> {
    if (snippets.length === 0 || (await this.#complaints(withSnippets(content), signal)) !== undefined)
      return undefined;
    const refused = await refusedOf(snippets, async ({ name }, beside) => {
      const config = withSnippets(content, new Set(beside.map((each) => each.name)));
      const found = await this.#complaints(config, signal);
      if (found === undefined) return undefined;
      const { said, path } = found;
      return complaintIn(said, { config, path, name }) ?? { why: spoken(said[0] ?? 'nothing', path) };
    });
    return this.refuse(refused);
  }

  async #unbindable(
    { snippets = [] }: Extract<HaproxyChange, { kind: 'file' }>,
    changes: readonly HaproxyChange[],
  ): Promise<PluginError | undefined> {
    const reload = changes.find(({ kind }) => kind === 'reload');
    if (reload?.kind !== 'reload' || !snippets.some(({ binds }) => binds.length > 0)) return undefined;
    const { running = new Set() } = reload;
    const former = (await this.#files.read(CONFIG_FILE)) ?? '';
    const addresses = Object.values(networkInterfaces()).flatMap((all = []) =>
      all.map(({ address }) => address),
    );
    return this.refuse(
      unbindable(snippets, { former, running, sockets: await listeningSockets(), addresses }),
    );
  }

  /** They are left out until their files are read again. @returns undefined where there are none */
  refuse(snippets: ReadonlyMap<UsedSnippet, Complaint>): PluginError | undefined {
    if (snippets.size === 0) return undefined;
    if (this.#refusedSnippets.size >= MAX_REFUSED_SNIPPETS) this.#refusedSnippets.clear();
    const alarms = [...snippets].map(([{ file, key }, complaint]) => {
      this.#refusedSnippets.set(key, complaint);
      return alarmOf(file, complaint);
    });
    return new PluginError({
      code: 'haproxy-snippet-refused',
      message: alarms.map(({ message }) => message).join('; '),
      next: 'correct it, then `bornemisza reload`; everything else is tried again without it',
      outcome: 'retry',
    });
  }

  /** What HAProxy says against a configuration, and the path under which it read it; undefined: nothing. */
  async #complaints(
    config: string,
    signal: AbortSignal,
  ): Promise<{ readonly said: readonly string[]; readonly path: string } | undefined> {
    const staged = await stageFile(this.#files.path('snippets'), config, { mode: FILE_MODE, suffix: '.cfg' });
    const path = staged.stagedPath;
    try {
      const { code, said } = await this.#ask(path, signal);
      return code === 0 ? undefined : { said: said.length > 0 ? said : [`exit status ${code}`], path };
    } catch (error) {
      // E.g. the address of a server has a name, and the resolver does not answer.
      if (!(error instanceof PluginError) || error.code !== 'command-timeout') throw error;
      return { said: [error.message], path };
    } finally {
      await staged.discard();
    }
  }

  async #ask(path: string, signal: AbortSignal): Promise<{ code: number; said: string[] }> {
    const options = { timeoutMs: CHECK_TIMEOUT_MS, signal, missingNext: 'install it: `dnf install haproxy`' };
    const { code, stdout, stderr } = await runCommand(this.#binary, ['-c', '-f', path], options);
    return { code, said: alertsIn(`${stdout}\n${stderr}`) };
  }

  async #check(path: string, signal: AbortSignal): Promise<void> {
    const { code, said: complaints } = await this.#ask(path, signal);
    if (code === 0) return;
    const said = complaints.slice(0, 2).join(' / ').replaceAll(path, CONFIG_FILE).slice(0, 400);
    throw new PluginError({
      code: 'haproxy-config-refused',
      message: `HAProxy refuses the new configuration: ${said || `exit status ${code}`}`,
      next:
        'correct the setting or certificate that it names, then `systemctl reload ' +
        `bornemisza@${this.#instance}\`; the last good configuration keeps running, and this one is tried ` +
        'again',
      // The result also depends on HAProxy's version, its libraries and the machine's policies.
      outcome: 'retry',
    });
  }
}

export function configIn(
  changes: readonly HaproxyChange[],
): Extract<HaproxyChange, { kind: 'file' }> | undefined {
  for (const change of changes) if (change.kind === 'file' && change.name === CONFIG_FILE) return change;
  return undefined;
}
