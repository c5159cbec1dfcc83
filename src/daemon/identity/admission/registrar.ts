import type { Clock } from '../../clock.ts';
import type { Config } from '../../config/config.ts';
import type {
  Done,
  MemberRow,
  RemoveRequest,
  TokenAnswer,
  TokenRequest,
  TokenRevocation,
  TokenRow,
  TokensAnswer,
  TokensRevoked,
} from '../../control/api.ts';
import type { Driver } from '../../driver/driver.ts';
import { OperatorError } from '../../errors.ts';
import { adoptAuthority, type Identity, removeMember } from '../identity.ts';
import { LEFT } from '../roster/removal.ts';
import type { RosterChange } from '../roster/roster.ts';
import type { Log } from '../../process/log.ts';
import type { MembershipView, PeerId } from '../../membership/types.ts';
import type { Standing } from './admit.ts';
import { AdmissionListener } from './listener.ts';
import type { TokenStore } from './token-store.ts';
import type { Names } from '../roster/names.ts';
import { mustBeOne, mustBeRemovable } from '../../control/operator-guards.ts';

/** A node that left stays visible for a while before its certificate is revoked. */
const LEFT_RETIRE_MS = 120_000;

export interface RegistrarDependencies {
  readonly clock: Clock;
  readonly log: Log;
  readonly driver: Pick<Driver, 'view' | 'nowMs' | 'admitted' | 'revoked' | 'rosterChanged'>;
  readonly names: Pick<Names, 'of'>;
  /** The nodes that refuse a removed member now, for people. */
  readonly applied: (rows: readonly MemberRow[], removed: PeerId) => Promise<string>;
  readonly node: {
    readonly config: Pick<Config, 'admissionPort' | 'network'>;
    rows(): readonly MemberRow[];
    operatorDid(what: string): void;
    /** Notifies the parts of this node; the driver notifies the others. */
    rosterChanged(change: RosterChange): void;
  };
}

/** Tokens, admission and removal of members. A node that is no authority refuses all of it. */
export class Registrar {
  readonly #identity: Identity;
  readonly #dependencies: RegistrarDependencies;
  /** On an authority. Listens while a token is valid. */
  #admission: AdmissionListener | undefined;
  #retiring = false;

  constructor(identity: Identity, dependencies: RegistrarDependencies) {
    this.#identity = identity;
    this.#dependencies = dependencies;
  }

  async start(): Promise<void> {
    if (this.#identity.authority === undefined) return;
    this.#admission = this.#listener();
    await this.#admission.refresh();
  }

  async close(): Promise<void> {
    await this.#admission?.close();
  }

  /** Shows the present root to joiners. */
  async reopen(): Promise<void> {
    await this.#admission?.reopen();
  }

  /** @throws OperatorError `not-authority` */
  async createTokens({ role, ttlMs, count = 1 }: TokenRequest): Promise<readonly TokenAnswer[]> {
    const { clock, node } = this.#dependencies;
    const { tokens, admission } = this.#issuing();
    const { address } = this.#identity;
    const port = node.config.admissionPort;
    const made = await tokens.createMany({ role, ttlMs, address, port, nowMs: clock.wallMs() }, count);
    await admission.refresh();
    const minutes = Math.round(ttlMs / 60_000);
    for (const { id } of made)
      node.operatorDid(`a token for one ${role} node was created (${minutes} minutes): ${id}`);
    return made.map(({ id, token, expiresAtMs }) => ({
      id,
      token,
      role,
      expiresAt: new Date(expiresAtMs).toISOString(),
      listen: `${address}:${port}`,
    }));
  }

  /** Open tokens first, then by their end. @throws OperatorError `not-authority` */
  async tokens(): Promise<TokensAnswer> {
    const { clock, names } = this.#dependencies;
    const nowMs = clock.wallMs();
    const rows = (await this.#issuing().tokens.list(nowMs)).map((facts): TokenRow => {
      const { id, role, state, createdAtMs, expiresAtMs, usedBy, usedAtMs } = facts;
      return {
        ...{ id, role, state: state === 'unused' ? 'open' : state },
        createdAt: new Date(createdAtMs).toISOString(),
        expiresAt: new Date(expiresAtMs).toISOString(),
        expiresInMs: Math.max(0, expiresAtMs - nowMs),
        ...(usedBy !== undefined && { usedBy: names.of(usedBy) }),
        ...(usedAtMs !== undefined && { usedAt: new Date(usedAtMs).toISOString() }),
      };
    });
    const open = (row: TokenRow): number => Number(row.state === 'open');
    return {
      authority: this.#identity.name,
      tokens: rows.sort((a, b) => open(b) - open(a) || a.expiresAt.localeCompare(b.expiresAt)),
    };
  }

  /** @throws OperatorError `not-authority`, IdentityError `token-unknown`, `token-not-open` */
  async revokeTokens({ id, all }: TokenRevocation): Promise<TokensRevoked> {
    const { clock, node } = this.#dependencies;
    const { tokens, admission } = this.#issuing();
    const nowMs = clock.wallMs();
    const open = (await tokens.list(nowMs)).filter(({ state }) => state === 'unused').map((each) => each.id);
    const revoked: string[] = [];
    for (const each of all === true ? open : [id ?? '']) {
      try {
        const { role } = await tokens.revoke(each, nowMs);
        revoked.push(each);
        node.operatorDid(`the token ${each} for one ${role} node was revoked`);
      } catch (error) {
        // A token that was used meanwhile does not stop the revocation of the others.
        if (all !== true || (error as { code?: unknown }).code !== 'token-not-open') throw error;
      }
    }
    // Revoked tokens stay revoked, even if the port cannot be opened for the others.
    await admission
      .refresh()
      .catch((error: unknown) => this.#note('admission-refresh-failed', String(error)));
    const what = revoked.length === 1 ? 'it admits' : 'they admit';
    const message =
      revoked.length === 0
        ? 'no token is open: nobody can join'
        : `revoked ${revoked.join(', ')}: ${what} nobody`;
    return { done: true, message, revoked };
  }

  #issuing(): { readonly tokens: TokenStore; readonly admission: AdmissionListener } {
    const { tokens } = this.#identity;
    if (tokens === undefined || this.#admission === undefined) throw this.#notAuthority();
    return { tokens, admission: this.#admission };
  }

  /** @throws OperatorError `not-authority`, of {@link mustBeRemovable}, IdentityError of {@link removeMember} */
  async remove(request: RemoveRequest): Promise<Done> {
    const { node } = request;
    const rows = this.#dependencies.node.rows();
    const found = rows.filter(
      (each) => each.name === node || each.peerId === node || each.name.startsWith(`${node}/`),
    );
    mustBeOne(found);
    const [row] = found;
    // This comes first, as no flag overrides it.
    if (this.#identity.authority === undefined && row?.self !== true) throw this.#notAuthority();
    mustBeRemovable(rows, row, request);
    const removed = await this.#putOut(node, 'removed by the operator');
    return {
      done: true,
      message: `${row?.name ?? node} was removed: ${await this.#dependencies.applied(rows, removed)}`,
    };
  }

  /** The root itself never gets here: the command opened it, and left the key of this one authority. */
  async adopt(): Promise<Done> {
    const { driver, node } = this.#dependencies;
    const { name } = this.#identity;
    const change = await adoptAuthority(this.#identity);
    if (change === undefined) return { done: true, message: `${name} is already an authority` };
    await this.start();
    node.rosterChanged(change);
    driver.rosterChanged();
    node.operatorDid(`${name} became an authority`);
    return {
      done: true,
      message: `${name} is an authority: it can admit and remove nodes, and renew certificates`,
    };
  }

  /** Once a second: an authority revokes the certificates of nodes that left. */
  async retireTheLeft(): Promise<void> {
    if (this.#identity.authority === undefined || this.#retiring) return;
    const { driver, log } = this.#dependencies;
    const nowMs = driver.nowMs();
    const gone = driver.view.members.find(
      ({ state, sinceMs, self, record }) =>
        state === 'left' &&
        !self &&
        nowMs - sinceMs > LEFT_RETIRE_MS &&
        this.#identity.roster.admits(record.peerId),
    );
    if (gone === undefined) return;
    this.#retiring = true;
    const { name, peerId } = gone.record;
    try {
      await this.#putOut(peerId, LEFT);
    } catch (error) {
      log.warn({ err: error, next: `run \`bornemisza remove ${name}\`` }, 'retiring a node that left failed');
    } finally {
      this.#retiring = false;
    }
  }

  /** @param member as an operator names it, or a PeerId */
  async #putOut(member: string, reason: string): Promise<PeerId> {
    const { clock, driver, node } = this.#dependencies;
    const { change, peerId } = await removeMember(this.#identity, member, reason, clock.wallMs());
    node.rosterChanged(change);
    driver.revoked(peerId);
    driver.rosterChanged();
    return peerId;
  }

  #listener(): AdmissionListener {
    const { clock, node, driver } = this.#dependencies;
    return new AdmissionListener({
      identity: this.#identity,
      address: this.#identity.address,
      port: node.config.admissionPort,
      privateNetwork: node.config.network.private_network,
      standing: (peer) => standingIn(driver.view, peer),
      seeds: () =>
        driver.view.members.map(({ record }) => ({
          peerId: record.peerId,
          address: record.address,
          port: record.port,
        })),
      onAdmitted: (change) => this.#admitted(change),
      onNote: (code, detail) => this.#note(code, detail),
      nowMs: () => clock.wallMs(),
    });
  }

  #admitted(change: RosterChange): void {
    const { driver, node } = this.#dependencies;
    node.rosterChanged(change);
    for (const member of change.admitted) driver.admitted(member);
    driver.rosterChanged();
  }

  #note(code: string, detail: string): void {
    const { log } = this.#dependencies;
    if (code === 'admission-open' || code === 'admission-closed') log.info({ code }, `admission: ${detail}`);
    else log.warn({ code, next: 'if this repeats, find the host that connects' }, `admission: ${detail}`);
  }

  #notAuthority(): OperatorError {
    const { names, node } = this.#dependencies;
    const authorities = this.#identity.roster.authorities().map((each) => names.of(each));
    const rows = node.rows();
    const alive = authorities.filter((name) =>
      rows.some((row) => row.name === name && row.state === 'alive'),
    );
    const add = 'make this node one with the recovery bundle: sudo bornemisza authority add';
    const dead =
      authorities.length === 0 ? '' : `start ${authorities.join(' or ')}, which is not reachable, or `;
    return new OperatorError(
      'not-authority',
      `${this.#identity.name} is not an authority: it can neither admit nor remove nodes`,
      alive.length > 0 ? `run this on ${alive.join(' or ')}` : `${dead}${add}`,
    );
  }
}

/** What this node knows of a member. */
function standingIn(view: Pick<MembershipView, 'members'>, peer: PeerId): Standing {
  const known = view.members.find(({ record }) => record.peerId === peer);
  if (known === undefined) return 'unheard';
  return known.state === 'dead' || known.state === 'left' ? 'gone' : 'alive';
}
