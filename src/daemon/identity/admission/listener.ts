import { createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type Server as TlsServer, type TLSSocket } from 'node:tls';
import { admit, type Admission, type Desk, type Standing } from './admit.ts';
import { IdentityError } from '../errors.ts';
import { type Identity, presentedRoot } from '../identity.ts';
import type { RosterChange } from '../roster/roster.ts';
import type { Seed } from '../state.ts';
import type { ProvedToken, TokenStore } from './token-store.ts';
import type { PeerId } from '../../membership/types.ts';
import { Door, DOOR_LIMITS, type DoorLimits } from './door.ts';
import {
  type Admitted,
  decodeHello,
  decodeLength,
  decodeRequest,
  encodeAnswer,
  EXPORTER_BYTES,
  EXPORTER_LABEL,
  HELLO_BYTES,
  INBOUND_BYTES,
  REQUEST_BYTES,
} from './frames.ts';
import { BoundedReader } from './reader.ts';

export interface AdmissionOptions {
  readonly identity: Identity;
  /** Private address and port to listen on. */
  readonly address: string;
  readonly port: number;
  /** Joiners' addresses must lie in it, such as `10.0.0.0/16`. */
  readonly privateNetwork: string;
  /** Whether the holder of a name or address is still alive; return true if in doubt. */
  standing(peerId: PeerId): Standing;
  /** The libp2p addresses of members, this one included; the joiner keeps the first 64. */
  seeds(): readonly Seed[];
  /** A node was admitted; the roster has it and is saved. Also called for a repeated answer, then without a change. */
  onAdmitted(change: RosterChange): void;
  /** A note for operators. `code` is stable. No secrets. */
  onNote(code: string, detail: string): void;
  /** Wall time. */
  nowMs(): number;
  readonly limits?: DoorLimits;
  /** Limit of a whole conversation, with the handshake. */
  readonly conversationMs?: number;
}

/** A joiner needs a tenth of a second; a slow network and a busy issuer get fifty times that. */
const CONVERSATION_MS = 5000;
/** setTimeout's longest delay is 24 days; a check each hour also handles a clock that jumps. */
const LOOK_AGAIN_MS = 3_600_000;

/**
 * Admits nodes with a valid token, and listens only while such a token exists.
 *
 * Without a proved token nobody gets more than a TLS handshake, and nobody can keep it busy: connections, bytes, time
 * and rate are bounded, in total and per address.
 */
export class AdmissionListener {
  readonly #options: AdmissionOptions;
  readonly #tokens: TokenStore;
  readonly #desk: Desk;
  readonly #door: Door;
  /** Plain sockets by the name that they share with the TLS socket above them. */
  readonly #sockets = new Map<string, Socket>();
  #listening: { readonly net: Server; readonly tls: TlsServer } | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;
  /** One change of open or closed at a time; one admission at a time. */
  #refreshing: Promise<void> = Promise.resolve();
  #admitting: Promise<unknown> = Promise.resolve();

  /** @throws IdentityError `not-authority` */
  constructor(options: AdmissionOptions) {
    const { authority, tokens, roster } = options.identity;
    if (authority === undefined || tokens === undefined) {
      const next = 'Create the token on an authority.';
      throw new IdentityError({ code: 'not-authority', message: 'This node may not admit others.', next });
    }
    this.#options = options;
    this.#tokens = tokens;
    const { privateNetwork } = options;
    this.#desk = {
      authority,
      roster,
      tokens,
      privateNetwork,
      standing: (peerId) => options.standing(peerId),
    };
    this.#door = new Door(options.limits ?? DOOR_LIMITS);
  }

  get open(): boolean {
    return this.#listening !== undefined;
  }

  /**
   * Opens if a token is valid, closes if none is, and checks again by itself when the last one ends. Call it at the
   * start and after a token was created.
   *
   * @throws IdentityError `admission-port-in-use`, `address-not-here`, `admission-listen` (all worth retrying)
   */
  refresh(): Promise<void> {
    const run = this.#refreshing.then(() => this.#refresh());
    this.#refreshing = run.catch(() => undefined);
    return run;
  }

  async #refresh(): Promise<void> {
    clearTimeout(this.#timer);
    if (this.#closed) return;
    const nowMs = this.#options.nowMs();
    const untilMs = await this.#tokens.openUntilMs(nowMs);
    if (untilMs === undefined) {
      await this.#shut();
      return;
    }
    if (this.#listening === undefined) await this.#listen();
    this.#timer = setTimeout(() => this.#again(), Math.min(untilMs - nowMs + 1, LOOK_AGAIN_MS));
    this.#timer.unref();
  }

  /** After a change of the root: shows the new one to joiners. */
  async reopen(): Promise<void> {
    const run = this.#refreshing.then(() => this.#shut()).then(() => this.#refresh());
    this.#refreshing = run.catch(() => undefined);
    await run;
  }

  #again(): void {
    this.refresh().catch((error: unknown) => this.#note('admission-refresh-failed', error));
  }

  /** Ends the listener and every conversation. Works before `refresh`, and twice. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#refreshing;
    await this.#shut();
    await this.#admitting;
  }

  async #listen(): Promise<void> {
    const { identity, address, port } = this.#options;
    const root = presentedRoot(identity.trust);
    const chain = identity.roster.hungOn(identity.chainPem, root) ?? identity.chainPem;
    const tls = createTlsServer({
      key: await identity.tlsKeyPem(),
      // With the root, which the joiner does not have yet: it compares the root with the token's fingerprint.
      cert: chain + root.pem,
      minVersion: 'TLSv1.3',
      handshakeTimeout: this.#options.conversationMs ?? CONVERSATION_MS,
    });
    tls.on('secureConnection', (socket) => void this.#converse(socket));
    // A failed handshake is not reported: the socket is gone.
    tls.on('tlsClientError', (_error, socket) => socket.destroy());
    const net = createServer({ noDelay: true }, (socket) => this.#enter(socket, tls));
    await listening(net, address, port);
    net.on('error', (error) => this.#note('admission-listen', error));
    this.#listening = { net, tls };
    this.#options.onNote('admission-open', `listening on ${address}:${port} while a token is valid`);
  }

  async #shut(): Promise<void> {
    const { net } = this.#listening ?? {};
    this.#listening = undefined;
    if (net === undefined) return;
    const closed = new Promise<void>((resolve) => {
      net.close(() => resolve());
    });
    for (const socket of this.#sockets.values()) socket.destroy();
    await closed;
    this.#options.onNote('admission-closed', 'no token is valid: the listener is closed');
  }

  /** Decides before anything is read; an accepted socket has one deadline for everything. */
  #enter(socket: Socket, tls: TlsServer): void {
    const name = nameOf(socket);
    const { enters, evicted } = this.#door.enter(name, socket.remoteAddress ?? '', performance.now());
    if (evicted !== undefined) this.#sockets.get(evicted)?.destroy();
    socket.on('error', () => socket.destroy());
    if (!enters) {
      socket.destroy();
      return;
    }
    this.#sockets.set(name, socket);
    const deadline = setTimeout(() => socket.destroy(), this.#options.conversationMs ?? CONVERSATION_MS);
    socket.once('close', () => {
      clearTimeout(deadline);
      this.#sockets.delete(name);
      this.#door.leave(name);
    });
    tls.emit('connection', socket);
  }

  async #converse(socket: TLSSocket): Promise<void> {
    const reader = new BoundedReader(socket, INBOUND_BYTES);
    try {
      const exporter = socket.exportKeyingMaterial(EXPORTER_BYTES, EXPORTER_LABEL, Buffer.alloc(0));
      const token = await this.#proved(reader, exporter);
      this.#door.prove(nameOf(socket));
      const length = decodeLength(await reader.read(4), REQUEST_BYTES);
      const body = await reader.read(length);
      socket.end(
        encodeAnswer(
          await this.#inTurn(() => this.#answer(body, token, exporter, socket.remoteAddress ?? '')),
        ),
      );
    } catch (error) {
      this.#refuse(socket, error);
    }
  }

  async #proved(reader: BoundedReader, exporter: Buffer): Promise<ProvedToken> {
    const { tokenId, proof } = decodeHello(await reader.read(HELLO_BYTES));
    const token = await this.#tokens.prove(tokenId, proof, exporter, this.#options.nowMs());
    if (token !== undefined) return token;
    // The same answer for a token of another cluster, a mistyped one and an unknown one: a stranger learns nothing.
    throw new IdentityError({
      code: 'token-unknown',
      message: 'The issuer does not know this token.',
      next: 'Create a new one with "bornemisza token create" on this issuer and join with that.',
    });
  }

  async #answer(
    body: Buffer,
    token: ProvedToken,
    exporter: Buffer,
    remoteAddress: string,
  ): Promise<Admitted> {
    const { identity } = this.#options;
    const arrival = { token, exporter, remoteAddress, nowMs: this.#options.nowMs() };
    const admission: Admission = await admit(this.#desk, decodeRequest(body), arrival);
    this.#options.onAdmitted(admission.change);
    // The token is used, so the listener may close soon.
    this.#again();
    return {
      admitted: true,
      cluster: identity.cluster,
      chain: admission.certificate.chainPem,
      roots: identity.rootsPem,
      roster: identity.roster.exportAll(),
      firstOfRole: admission.firstOfRole,
      seeds: this.#options.seeds().slice(0, 64),
    };
  }

  /** Two admissions at once could both find a name free. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#admitting.then(work);
    this.#admitting = turn.catch(() => undefined);
    return turn;
  }

  #refuse(socket: TLSSocket, error: unknown): void {
    this.#note('admission-refused', error);
    if (socket.destroyed) return;
    const known = error instanceof IdentityError ? error : unexpected();
    const { code, message, next, retry } = known;
    socket.end(encodeAnswer({ admitted: false, code, message, next, retry }));
  }

  #note(code: string, error: unknown): void {
    const detail = error instanceof IdentityError ? `${error.code}: ${error.message}` : String(error);
    this.#options.onNote(code, detail);
  }
}

function nameOf(socket: Socket): string {
  return `${socket.remoteAddress ?? ''}:${socket.remotePort ?? 0}`;
}

/** The reason of an internal error goes to the issuer's journal, not to the stranger. */
function unexpected(): IdentityError {
  return new IdentityError({
    code: 'admission-failed',
    message: 'The issuer could not admit this node.',
    next: 'See the journal of the issuer (journalctl -u "bornemisza@*"), then try again.',
    retry: true,
  });
}

function listening(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) => reject(listenError(error, host, port)));
    server.listen({ host, port }, () => {
      server.removeAllListeners('error');
      resolve();
    });
  });
}

function listenError(error: Error & { code?: string }, host: string, port: number): IdentityError {
  const common = { retry: true, cause: error };
  if (error.code === 'EADDRINUSE') {
    const next = `See who holds it with "ss -ltnp sport = :${port}", and stop that program.`;
    const message = `The admission port ${host}:${port} is in use by another program.`;
    return new IdentityError({ ...common, code: 'admission-port-in-use', message, next });
  }
  if (error.code === 'EADDRNOTAVAIL') {
    const next = 'Bring the private device up, or correct private_address in the configuration.';
    return new IdentityError({
      ...common,
      code: 'address-not-here',
      message: `${host} is not on this host.`,
      next,
    });
  }
  const next = 'Check the private device with "ip addr".';
  const message = `Admission cannot listen on ${host}:${port}: ${error.message}.`;
  return new IdentityError({ ...common, code: 'admission-listen', message, next });
}
