import { stat } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { readIfOurs } from '../../host/files.ts';
import { addressesNow } from '../../host/ip.ts';
import { parseReply, type ReplyLine } from './control.ts';
import { type BirdObserver, type BirdOptions, lookAt, type Sight } from './observe.ts';
import { addressesIn } from './plan.ts';
import { FAULT_GRACE_MS } from './report.ts';

const WATCHED = ['an address of this host changed', 'the fragment for BIRD changed'];

/** Notices at once what others change: addresses, our fragment, the announcement. */
export class BirdWatch {
  readonly #observer: BirdObserver;
  readonly #options: BirdOptions;
  #end: (() => void) | undefined;

  constructor(observer: BirdObserver, options: BirdOptions) {
    this.#observer = observer;
    this.#options = options;
  }

  end(): void {
    this.#end?.();
  }

  /**
   * An open connection to BIRD shows its end at once; addresses and manual changes are checked twice a second.
   */
  begin(changed: (what: string) => void): () => void {
    this.end();
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
    this.#end = () => {
      ended = true;
      clearTimeout(timer);
      link.close();
    };
    return this.#end;
  }

  async #fileMark(): Promise<string> {
    const facts = await stat(this.#observer.path, { bigint: true }).catch(() => undefined);
    return facts === undefined ? 'no file' : `file ${facts.ino}/${facts.mtimeNs}`;
  }

  /** The parts of the announcement whose change matters, in one line. */
  async #sight(link: BirdLink): Promise<string> {
    const fragment = (await readIfOurs(this.#observer.path).catch(() => undefined)) ?? '';
    const seen = await link.look(addressesIn(fragment));
    if (typeof seen === 'string') return seen;
    const { loaded, announcing, sessions } = seen;
    const fault = this.#observer.judge(seen, fragment);
    const lasting = fault !== undefined && fault.forMs >= FAULT_GRACE_MS ? [fault.code] : [];
    const routes = sessions.map(
      ({ name, up, routes: own }) => `${name} ${up ? 'up' : 'down'} with ${own.length} routes`,
    );
    return [loaded === undefined ? 'not loaded' : announcing ? 'up' : 'down', ...routes, ...lasting].join(
      ', ',
    );
  }
}

/** A connection to the control socket that stays open, so that the end of BIRD is noticed at once. */
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

/** One answer on an open connection; undefined if it closes or is silent for a second. */
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
