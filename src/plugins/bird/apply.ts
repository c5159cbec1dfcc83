import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand } from '../../host/command.ts';
import { readIfOurs, replaceFile, type Staged, stageFile } from '../../host/files.ts';
import { removeAddress } from '../../host/ip.ts';
import { PluginError } from '../contract.ts';
import { birdNotRunning, type ReplyLine, tell } from './control.ts';
import { addAddress, addDevice, raiseDevice, removeDevice } from './device.ts';
import type { BirdObserver, BirdOptions } from './observe.ts';
import { type BirdChange, PROTOCOL } from './plan.ts';

export interface BirdCheckpoint {
  /** The former file; it also records whether the addresses were announced. */
  readonly fragment: string | undefined;
  /** A withdrawal is never undone: no route is better than a route to a node that must not get requests. */
  readonly withdraws: boolean;
}

const CHECK_TIMEOUT_MS = 10_000;
/** A reconfiguration waits for sessions that have to end first. */
const CONFIGURE_TIMEOUT_MS = 5000;
const FILE_MODE = 0o640;

/** Makes the changes: devices and addresses by `ip`, the fragment as a file, and BIRD over its control socket. */
export class BirdSteps {
  readonly #options: BirdOptions;
  readonly #observer: BirdObserver;
  #staged: Staged | undefined;

  constructor(options: BirdOptions, observer: BirdObserver) {
    this.#options = options;
    this.#observer = observer;
  }

  /** Checks only the fragment; BIRD checks it within root's bird.conf before it loads it. */
  async validate(changes: readonly BirdChange[], signal: AbortSignal): Promise<void> {
    await this.discard();
    const file = changes.find((change) => change.kind === 'file');
    // Only `disabled` differs: BIRD need not read the file.
    if (
      file?.kind !== 'file' ||
      !changes.some((change) => change.kind === 'configure' || change.kind === 'start')
    )
      return;
    // Not `.conf`: root's include must not match it yet.
    this.#staged = await stageFile(this.#observer.path, file.content, { mode: FILE_MODE, suffix: '.staged' });
    try {
      await this.#check(this.#staged.stagedPath, signal);
    } catch (error) {
      await this.discard();
      throw error;
    }
  }

  async checkpoint(changes: readonly BirdChange[]): Promise<BirdCheckpoint> {
    return {
      fragment: await readIfOurs(this.#observer.path),
      withdraws: changes.some(({ kind }) => kind === 'withdraw'),
    };
  }

  async apply(
    changes: readonly BirdChange[],
    signal: AbortSignal,
    made: (change: BirdChange) => void,
  ): Promise<void> {
    try {
      for (const change of changes) {
        await this.#make(change, signal);
        made(change);
      }
    } finally {
      await this.discard();
    }
  }

  /**
   * Restores the former fragment and has BIRD load it. Device and addresses stay as they are: an address alone attracts
   * no traffic. Without a former fragment the new one stays: it has passed its check and waits for a valid bird.conf.
   */
  async undo({ fragment, withdraws }: BirdCheckpoint, signal: AbortSignal): Promise<void> {
    if (fragment === undefined) return;
    const restored = withdraws ? fragment.replace(/^ {2}disabled no;$/m, '  disabled yes;') : fragment;
    await replaceFile(this.#observer.path, restored, { mode: FILE_MODE });
    const running = await this.#observer.running(signal);
    if (running === undefined) return;
    const { loaded, announcing } = running;
    const right = loaded !== undefined && restored.includes(`"bornemisza ${loaded}"`);
    if (!right || announcing !== restored.includes('  disabled no;')) await this.#configure(signal);
  }

  async #check(staged: string, signal: AbortSignal): Promise<void> {
    const main = await stageFile(
      join(this.#options.fragmentDirectory, 'check'),
      `router id 192.0.2.1;\nprotocol device {}\ninclude "${staged}";\n`,
      {
        suffix: '.staged',
      },
    );
    try {
      const options = { timeoutMs: CHECK_TIMEOUT_MS, signal, missingNext: 'install it: `dnf install bird`' };
      const { code, stderr, stdout } = await runCommand(
        this.#options.binary ?? 'bird',
        ['-p', '-c', main.stagedPath],
        options,
      );
      if (code !== 0) throw configRefused(`${stderr}${stdout}`.trim());
    } finally {
      await main.discard();
    }
  }

  async #make(change: BirdChange, signal: AbortSignal): Promise<void> {
    if (/^(device|address)-/.test(change.kind)) this.#observer.forgetDevices();
    switch (change.kind) {
      case 'withdraw':
        return await this.#switch('disable', signal);
      case 'announce':
        return await this.#switch('enable', signal);
      case 'device-add':
        return await addDevice(change.device, signal);
      case 'device-up':
        return await raiseDevice(change.device, signal);
      case 'device-remove':
        return await removeDevice(change.device, signal);
      case 'address-add':
        return await addAddress(change.device, change.address, signal);
      case 'address-remove':
        return await removeAddress(change.device, change.address, signal);
      case 'file': {
        const staged = this.#staged;
        this.#staged = undefined;
        if (staged !== undefined) return await staged.commit();
        await replaceFile(this.#observer.path, change.content, { mode: FILE_MODE });
        return;
      }
      case 'file-remove':
        return await rm(this.#observer.path, { force: true });
      case 'configure':
        await this.#configure(signal);
        return await this.#awaitLoaded(change.digest, signal);
      case 'start':
        if ((await this.#observer.running(signal)) === undefined)
          throw birdNotRunning(this.#options.controlSocket);
        return;
    }
  }

  /**
   * 0009 disabled, 0008 already disabled, 0011 enabled, 0010 already enabled; the last line is always an empty 0000.
   */
  async #switch(verb: 'enable' | 'disable', signal: AbortSignal): Promise<void> {
    const [lines = []] = await tell(this.#options.controlSocket, [`${verb} ${PROTOCOL}`], { signal });
    const complaint = lines.find(({ code }) => code >= 8000);
    if (complaint !== undefined) throw refusedCommand(`${verb} ${PROTOCOL}`, complaint.text);
  }

  /**
   * Has BIRD read its files again. It takes `disabled` from them even after a change by hand, so the file always holds
   * the desired state.
   */
  async #configure(signal: AbortSignal): Promise<void> {
    const { controlSocket } = this.#options;
    const [check = []] = await tell(controlSocket, ['configure check'], { signal });
    refuse(check);
    const [done = []] = await tell(controlSocket, ['configure'], { signal, timeoutMs: CONFIGURE_TIMEOUT_MS });
    refuse(done);
  }

  /** 0004 to `configure` means in progress: some protocol has to end first. */
  async #awaitLoaded(digest: string | undefined, signal: AbortSignal): Promise<void> {
    const deadline = performance.now() + CONFIGURE_TIMEOUT_MS;
    while (performance.now() < deadline) {
      if ((await this.#observer.running(signal))?.loaded === digest) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const { fragmentDirectory } = this.#options;
    throw refusedCommand(
      'configure',
      digest === undefined
        ? 'the former fragment is still loaded'
        : `the fragment is not loaded: does bird.conf include ${fragmentDirectory}/*.conf?`,
    );
  }

  async discard(): Promise<void> {
    const staged = this.#staged;
    this.#staged = undefined;
    await staged?.discard();
  }
}

function refuse(lines: readonly ReplyLine[]): void {
  const complaint = lines.find(({ code }) => code >= 8000);
  if (complaint !== undefined) throw configRefused(complaint.text);
}

function configRefused(said: string): PluginError {
  return new PluginError({
    code: 'bird-config-refused',
    message: `BIRD refuses its configuration: ${said.split('\n')[0]?.slice(0, 300)}`,
    next: 'correct the file and line that it names (`bird -p`); BIRD keeps its former configuration',
    outcome: 'retry',
  });
}

function refusedCommand(command: string, said: string): PluginError {
  return new PluginError({
    code: 'bird-command-refused',
    message: `BIRD refuses \`${command}\`: ${said.slice(0, 300)}`,
    next: 'see `bornemisza doctor`; bird.conf must include the fragment of bornemisza',
    outcome: 'retry',
  });
}
