import { runCommand } from '../../host/command.ts';
import { type Staged, stageFile } from '../../host/files.ts';
import { PluginError } from '../contract.ts';
import { FILE_MODE, type HaproxyFiles } from './files.ts';
import type { HaproxyChange } from './plan.ts';
import { CONFIG_FILE, NO_STATE, REVOKED_FILE, STATE_FILE } from './rendered.ts';
import { siteFileIn, siteProof } from './site-certificate.ts';

/** `haproxy -c` takes 20 ms; a loaded machine may take long. */
const CHECK_TIMEOUT_MS = 15_000;
/** Certificates for the site that were refused; a founder tries a few. */
const MAX_REFUSED = 16;

/** Lets HAProxy check a new configuration, and keeps it staged until it is put in its place. */
export class Validator {
  readonly #instance: 'app' | 'db';
  readonly #binary: string;
  readonly #files: HaproxyFiles;
  readonly #refused = new Map<string, string>();
  #staged: Staged | undefined;
  /** The configuration that was refused last. */
  #refusedConfig: string | undefined;

  constructor(instance: 'app' | 'db', binary: string, files: HaproxyFiles) {
    this.#instance = instance;
    this.#binary = binary;
    this.#files = files;
  }

  /** Certificates for the site that HAProxy refuses, and why. */
  get refusedSites(): ReadonlyMap<string, string> {
    return this.#refused;
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
    for (const change of changes) {
      if (change.kind === 'file' && change.name.endsWith('.pem'))
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
      throw (await this.#siteRefusal(config.content, signal)) ?? error;
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

  async #check(path: string, signal: AbortSignal): Promise<void> {
    const options = { timeoutMs: CHECK_TIMEOUT_MS, signal, missingNext: 'install it: `dnf install haproxy`' };
    const { code, stdout, stderr } = await runCommand(this.#binary, ['-c', '-f', path], options);
    if (code === 0) return;
    const complaints = `${stdout}\n${stderr}`
      .split('\n')
      .flatMap((line) => /^\[ALERT\][^:]*: (?:config : )?(.*)$/.exec(line)?.[1] ?? []);
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

function configIn(changes: readonly HaproxyChange[]): Extract<HaproxyChange, { kind: 'file' }> | undefined {
  for (const change of changes) if (change.kind === 'file' && change.name === CONFIG_FILE) return change;
  return undefined;
}
