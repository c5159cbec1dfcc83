import { rm, stat } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { runCommand } from '../../host/command.ts';
import { type Plugin, PluginError } from '../contract.ts';
import { readIfOurs, replaceFile, type Staged, stageFile } from '../../host/files.ts';
import { addressesNow, removeAddress } from '../../host/ip.ts';
import { birdNotRunning, parseReply, type ReplyLine, tell } from './control.ts';
import type { BirdDesired, BirdRetired } from './desired.ts';
import { addAddress, addDevice, raiseDevice, readDevices, removeDevice } from './device.ts';
import { lookAt, type Sight } from './look.ts';
import {
  addressesIn,
  type BirdChange,
  type BirdFault,
  type BirdObserved,
  FRAGMENT,
  localAsIn,
  planBird,
  PROTOCOL,
} from './plan.ts';
import { type BirdReport, FAULT_GRACE_MS, faultOf, reportOf } from './report.ts';

export interface BirdOptions {
  /** Included by root's bird.conf, e.g. /etc/bird/bornemisza.d. */
  readonly fragmentDirectory: string;
  /** E.g. /run/bird/bird.ctl. */
  readonly controlSocket: string;
  readonly binary?: string;
  /** How often addresses and the announcement are looked at. Default 500. */
  readonly watchIntervalMs?: number;
  /** Default: `ip -d addr`. */
  readonly readDevices?: typeof readDevices;
}

export interface BirdCheckpoint {
  /** The file as it was; it says as well whether the addresses were announced. */
  readonly fragment: string | undefined;
  /** A withdrawal is never undone: rather no route than one to a node that must not get requests. */
  readonly withdraws: boolean;
}

/**
 * A look at the devices starts a process, 0.1 to 0.3 s on a busy host, before a withdrawal that takes a millisecond.
 * What was seen holds as long as the host has the same addresses, which one system call tells; not longer than this,
 * since it does not tell the kind of a device.
 */
const DEVICES_HOLD_MS = 10_000;
const CHECK_TIMEOUT_MS = 10_000;
/** A reconfiguration waits for sessions that have to end first. */
const CONFIGURE_TIMEOUT_MS = 5000;
const FILE_MODE = 0o640;

/** The one writer of the floating IPs: their device, their addresses, and whether BIRD tells the provider. */
export class BirdPlugin
  implements Plugin<BirdDesired | BirdRetired, BirdObserved, BirdChange, BirdCheckpoint, BirdReport>
{
  readonly name = 'bird';
  readonly evidence = 'birdc show protocols all bornemisza_floating';
  readonly #options: BirdOptions;
  #staged: Staged | undefined;
  #fault: { readonly code: BirdFault; readonly sinceMs: number } | undefined;
  #endWatch: (() => void) | undefined;
  #devicesSeen:
    | { readonly devices: BirdObserved['devices']; readonly with: string; readonly atMs: number }
    | undefined;

  constructor(options: BirdOptions) {
    this.#options = options;
  }

  /** Whether a fragment of ours is there: BIRD was used once. */
  async leftBehind(): Promise<boolean> {
    return (await readIfOurs(this.#path)) !== undefined;
  }

  async observe(signal: AbortSignal): Promise<BirdObserved> {
    const fragment = await readIfOurs(this.#path);
    const [devices, running] = await Promise.all([this.#devices(signal), this.#running(signal, fragment)]);
    const fault = this.#judge(running, fragment);
    const localAs = running?.localAs ?? localAsIn(fragment ?? '');
    return { devices, fragment, localAs, running, fault };
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

  plan(desired: BirdDesired | BirdRetired, observed: BirdObserved): BirdChange[] {
    return planBird(desired, observed);
  }

  status(desired: BirdDesired | BirdRetired, observed: BirdObserved): BirdReport {
    return reportOf(desired, observed);
  }

  /** Proves the fragment alone; what root's bird.conf makes of it BIRD itself says before it takes it. */
  async validate(changes: readonly BirdChange[], signal: AbortSignal): Promise<void> {
    await this.#discardStaged();
    const file = changes.find((change) => change.kind === 'file');
    // Nothing but `disabled` differs: BIRD won't even read it.
    if (
      file?.kind !== 'file' ||
      !changes.some((change) => change.kind === 'configure' || change.kind === 'start')
    )
      return;
    // Not `.conf`: root's include must not see it yet.
    this.#staged = await stageFile(this.#path, file.content, { mode: FILE_MODE, suffix: '.staged' });
    try {
      await this.#check(this.#staged.stagedPath, signal);
    } catch (error) {
      await this.#discardStaged();
      throw error;
    }
  }

  async checkpoint(changes: readonly BirdChange[]): Promise<BirdCheckpoint> {
    return {
      fragment: await readIfOurs(this.#path),
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
      await this.#discardStaged();
    }
  }

  /**
   * The fragment as it was, and BIRD according to it. Device and addresses stay as they are: an address alone draws
   * nothing. Without a former fragment the new one stays: it has passed its own check and waits for a bird.conf that is
   * right.
   */
  async undo({ fragment, withdraws }: BirdCheckpoint, signal: AbortSignal): Promise<void> {
    if (fragment === undefined) return;
    const restored = withdraws ? fragment.replace(/^ {2}disabled no;$/m, '  disabled yes;') : fragment;
    await replaceFile(this.#path, restored, { mode: FILE_MODE });
    const running = await this.#running(signal);
    if (running === undefined) return;
    const { loaded, announcing } = running;
    const right = loaded !== undefined && restored.includes(`"bornemisza ${loaded}"`);
    if (!right || announcing !== restored.includes('  disabled no;')) await this.#configure(signal);
  }

  async close(): Promise<void> {
    this.#endWatch?.();
    await this.#discardStaged();
  }

  /**
   * An open connection to BIRD tells its end at once; addresses and what is done by hand are looked at twice a second.
   */
  watch(changed: (what: string) => void): () => void {
    this.#endWatch?.();
    const link = new BirdLink(this.#options.controlSocket, changed);
    let last: readonly string[] | undefined;
    let timer: NodeJS.Timeout | undefined;
    let ended = false;
    const look = async (): Promise<void> => {
      const sight = [addressesNow(), await this.#fileMark(), await this.#sight(link)];
      if (ended) return;
      const which = last === undefined ? -1 : sight.findIndex((each, index) => each !== last?.[index]);
      if (which >= 0)
        changed(
          which === 2
            ? `announcement of the floating IPs: ${last?.[2]} → ${sight[2]}`
            : (WATCHED[which] ?? ''),
        );
      last = sight;
      timer = setTimeout(() => void look(), this.#options.watchIntervalMs ?? 500);
    };
    void look();
    this.#endWatch = () => {
      ended = true;
      clearTimeout(timer);
      link.close();
    };
    return this.#endWatch;
  }

  get #path(): string {
    return join(this.#options.fragmentDirectory, FRAGMENT);
  }

  async #fileMark(): Promise<string> {
    const facts = await stat(this.#path, { bigint: true }).catch(() => undefined);
    return facts === undefined ? 'no file' : `file ${facts.ino}/${facts.mtimeNs}`;
  }

  /** @param fragment whose addresses are looked up in BIRD; without it none are */
  async #running(signal: AbortSignal, fragment = ''): Promise<Sight | undefined> {
    const ask = async (command: string): Promise<ReplyLine[]> =>
      (await tell(this.#options.controlSocket, [command], { signal }))[0] ?? [];
    try {
      return await lookAt(ask, addressesIn(fragment));
    } catch (error) {
      if (error instanceof PluginError && error.code === 'bird-not-running') return undefined;
      throw error;
    }
  }

  /** For how long the announcement has not been as our fragment asks for it. */
  #judge(running: Sight | undefined, fragment = ''): BirdObserved['fault'] {
    const addresses = addressesIn(fragment).map((network) => network.replace(/\/32$/, ''));
    const code = running === undefined ? undefined : faultOf(running, addresses, announcedIn(fragment));
    const nowMs = performance.now();
    if (code !== this.#fault?.code) this.#fault = code === undefined ? undefined : { code, sinceMs: nowMs };
    const { sinceMs = nowMs } = this.#fault ?? {};
    return code === undefined ? undefined : { code, forMs: nowMs - sinceMs };
  }

  /** The announcement in one line, as far as a change of it matters. */
  async #sight(link: BirdLink): Promise<string> {
    const fragment = (await readIfOurs(this.#path).catch(() => undefined)) ?? '';
    const seen = await link.look(addressesIn(fragment));
    if (typeof seen === 'string') return seen;
    const { loaded, announcing, sessions } = seen;
    const fault = this.#judge(seen, fragment);
    const lasting = fault !== undefined && fault.forMs >= FAULT_GRACE_MS ? [fault.code] : [];
    const routes = sessions.map(
      ({ name, up, routes: own }) => `${name} ${up ? 'up' : 'down'} with ${own.length} routes`,
    );
    return [loaded === undefined ? 'not loaded' : announcing ? 'up' : 'down', ...routes, ...lasting].join(
      ', ',
    );
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
    if (/^(device|address)-/.test(change.kind)) this.#devicesSeen = undefined;
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
        await replaceFile(this.#path, change.content, { mode: FILE_MODE });
        return;
      }
      case 'file-remove':
        return await rm(this.#path, { force: true });
      case 'configure':
        await this.#configure(signal);
        return await this.#awaitLoaded(change.digest, signal);
      case 'start':
        if ((await this.#running(signal)) === undefined) throw birdNotRunning(this.#options.controlSocket);
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
   * Has BIRD read its files again. It takes `disabled` from there whatever was enabled by hand, which is why the
   * file always says what should be.
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
      if ((await this.#running(signal))?.loaded === digest) return;
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

  async #discardStaged(): Promise<void> {
    const staged = this.#staged;
    this.#staged = undefined;
    await staged?.discard();
  }
}

const WATCHED = ['an address of this host changed', 'the fragment for BIRD changed'];

function announcedIn(fragment: string): boolean {
  return /^ {2}disabled no;$/m.test(fragment);
}

/** A connection to the control socket that stays open, so that BIRD's end is known when it happens. */
class BirdLink {
  readonly #path: string;
  readonly #changed: (what: string) => void;
  #socket: Socket | undefined;
  #closed = false;

  constructor(path: string, changed: (what: string) => void) {
    this.#path = path;
    this.#changed = changed;
  }

  async look(networks: readonly string[]): Promise<Sight | 'BIRD is not running' | 'BIRD does not answer'> {
    const socket = this.#socket ?? (await this.#open());
    if (socket === undefined) return 'BIRD is not running';
    const sight = await lookAt((command) => question(socket, `${command}\n`), networks);
    return sight ?? 'BIRD does not answer';
  }

  close(): void {
    this.#closed = true;
    this.#socket?.destroy();
  }

  async #open(): Promise<Socket | undefined> {
    const socket = connect(this.#path);
    socket.on('error', () => {});
    const greeting = await question(socket, undefined);
    if (greeting === undefined || this.#closed) {
      socket.destroy();
      return undefined;
    }
    this.#socket = socket;
    socket.once('close', () => {
      this.#socket = undefined;
      if (!this.#closed) this.#changed('BIRD is not running');
    });
    return socket;
  }
}

/** One answer on an open connection; undefined when it closes or says nothing for a second. */
function question(socket: Socket, command: string | undefined): Promise<ReplyLine[] | undefined> {
  return new Promise((resolve) => {
    let text = '';
    const settle = (lines: ReplyLine[] | undefined): void => {
      clearTimeout(timer);
      socket.off('data', take);
      socket.off('close', gone);
      if (lines === undefined) socket.destroy();
      resolve(lines);
    };
    const take = (chunk: Buffer): void => {
      text += chunk.toString('latin1');
      const reply = parseReply(text);
      if (reply !== undefined) settle(reply.lines);
      else if (text.length > 1024 * 1024) settle(undefined);
    };
    const gone = (): void => settle(undefined);
    const timer = setTimeout(gone, 1000);
    socket.on('data', take);
    socket.once('close', gone);
    if (command !== undefined) socket.write(command);
  });
}

function refuse(lines: readonly ReplyLine[]): void {
  const complaint = lines.find(({ code }) => code >= 8000);
  if (complaint !== undefined) throw configRefused(complaint.text);
}

function configRefused(said: string): PluginError {
  return new PluginError({
    code: 'bird-config-refused',
    message: `BIRD refuses its configuration: ${said.split('\n')[0]?.slice(0, 300)}`,
    next: 'correct the file and line that it names (`bird -p`); BIRD keeps running with what it had',
    outcome: 'retry',
    stateChanged: false,
  });
}

function refusedCommand(command: string, said: string): PluginError {
  return new PluginError({
    code: 'bird-command-refused',
    message: `BIRD refuses \`${command}\`: ${said.slice(0, 300)}`,
    next: 'see `bornemisza doctor`; bird.conf must include the fragment of bornemisza',
    outcome: 'retry',
    stateChanged: false,
  });
}
