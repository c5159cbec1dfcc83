import { pbkdf2Sync } from 'node:crypto';
import { type Account, mergeAccounts } from '../accounts/account.ts';
import { identityOf } from '../accounts/address.ts';
import type { KeyRing } from '../accounts/keys.ts';
import {
  accountName,
  addressDocumentId,
  databaseOf,
  mailDocumentId,
  userDocumentId,
} from '../accounts/names.ts';
import { type Couch, CouchError, type Credentials } from './couch.ts';
import { Documents } from './documents.ts';

/** How long a node caches an account: the longest delay of a sign-out at another node. */
const CACHE_MS = 5000;
const MAX_CACHED = 10_000;
/** Accounts of a page that are read at once: an operator's list leaves connections for everybody else. */
const READ_AT_ONCE = 16;
/** Two nodes that write the same document alternate; more attempts than this are no race. */
const TRIES = 5;
/** One mail an address and minute, five a day. */
const MAIL_GAP_MS = 60_000;
const MAILS_A_DAY = 5;
const DAY_MS = 24 * 3600_000;

interface Stored {
  readonly account: Account;
  readonly rev: string;
  readonly losers: readonly string[];
  readonly body: Readonly<Record<string, unknown>>;
}

interface AccountsDependencies {
  readonly couch: Couch;
  readonly keys: KeyRing;
  /** Account `app`, in role `bornemisza-app`. */
  readonly app: Credentials;
  readonly nowMs: () => number;
}

interface Page {
  readonly accounts: readonly Account[];
  readonly next: string | undefined;
}

type Holder =
  /** Nobody has the address: the name of the account that would be created for it. */
  | { readonly account: undefined; readonly name: string; readonly generation: number }
  | { readonly account: Account; readonly name: string; readonly generation: number };

/**
 * Accounts in `_users`, and who has which address, in the application's own database. If they differ, the account is
 * right.
 */
export class Accounts {
  readonly #couch: Couch;
  readonly #keys: KeyRing;
  readonly #app: Credentials;
  readonly #nowMs: () => number;
  readonly #users: Documents;
  readonly #own: Documents;
  /** The key of the login that CouchDB took when it refused the other. */
  readonly #worked = new Map<string, { readonly keyId: string; readonly atMs: number }>();
  readonly #cache = new Map<string, { readonly account: Account | undefined; readonly readMs: number }>();

  constructor({ couch, keys, app, nowMs }: AccountsDependencies) {
    this.#couch = couch;
    this.#keys = keys;
    this.#app = app;
    this.#nowMs = nowMs;
    this.#users = new Documents(couch, '_users', app);
    this.#own = new Documents(couch, databaseOf(app.name), app);
  }

  /** At most 5 seconds old. */
  async cached(name: string): Promise<Account | undefined> {
    const known = this.#cache.get(name);
    if (known !== undefined && this.#nowMs() - known.readMs < CACHE_MS) return known.account;
    const account = (await this.#read(name))?.account;
    this.#remember(name, account);
    return account;
  }

  async fresh(name: string): Promise<Account | undefined> {
    const account = (await this.#read(name))?.account;
    this.#remember(name, account);
    return account;
  }

  /** Who has this address, by the address document and the account itself. */
  async holderOf(identity: string): Promise<Holder> {
    const lookup = await this.#own.read(addressDocumentId(this.#keys, identity));
    const newest = (lookup.found ?? []).map(({ body }) => addressOf(body)).toSorted(byGeneration)[0];
    const generation = newest?.generation ?? 0;
    const free = (at: number): Holder => ({
      account: undefined,
      name: accountName(this.#keys, identity, at),
      generation: at,
    });
    if (newest?.account === undefined) return free(generation);
    const user = await this.#users.read(userDocumentId(newest.account));
    // The account was deleted, but the release was not written: the next use of the address is another account.
    if (user.found === undefined) return free(user.deleted ? generation + 1 : generation);
    const account = await this.fresh(newest.account);
    if (account === undefined || identityOf(account.email) !== identity) return free(generation + 1);
    return { account, name: account.name, generation };
  }

  /**
   * One page of all accounts, by the documents of their addresses: CouchDB lists `_users` for administrators alone.
   *
   * @param after the end of the previous page
   * @returns `next` if there is more
   */
  async page(after: string | undefined, limit: number): Promise<Page> {
    const ids = await this.#own.ids('email:', after, limit);
    const accounts: Account[] = [];
    for (let at = 0; at < ids.length; at += READ_AT_ONCE) {
      const found = await Promise.all(ids.slice(at, at + READ_AT_ONCE).map((id) => this.#confirmed(id)));
      accounts.push(...found.filter((each) => each !== undefined));
    }
    return { accounts, next: ids.length < limit ? undefined : ids.at(-1) };
  }

  /** The account that an address document names, if the account confirms it. */
  async #confirmed(id: string): Promise<Account | undefined> {
    const versions = (await this.#own.read(id)).found ?? [];
    const newest = versions.map(({ body }) => addressOf(body)).toSorted(byGeneration)[0];
    const account = newest?.account === undefined ? undefined : await this.fresh(newest.account);
    if (account === undefined) return undefined;
    return addressDocumentId(this.#keys, identityOf(account.email)) === id ? account : undefined;
  }

  /**
   * Creates the account; each step may be done already, so the same link completes an interrupted creation.
   *
   * @throws CouchError `databases-disagree`, `not-durable`
   */
  async create(identity: string, holder: Holder, account: Account): Promise<void> {
    await this.#mustAgree();
    await this.#claim(identity, { account: account.name, generation: holder.generation });
    const stored = await this.#read(account.name);
    if (stored !== undefined) return;
    await this.#users.write(userDocumentId(account.name), this.#document(account));
    this.#cache.delete(account.name);
  }

  /**
   * Changes an account by a pure function, again if another node wrote in between.
   *
   * @returns the present account, undefined if it is gone or `change` refuses
   */
  async change(
    name: string,
    change: (account: Account) => Account | undefined,
  ): Promise<Account | undefined> {
    for (let tries = 0; tries < TRIES; tries += 1) {
      const stored = await this.#read(name);
      const wanted = stored === undefined ? undefined : change(stored.account);
      if (stored === undefined || wanted === undefined) return undefined;
      if (await this.#users.write(userDocumentId(name), this.#document(wanted), stored.rev)) {
        for (const rev of stored.losers)
          await this.#users.remove(userDocumentId(name), rev).catch(() => undefined);
        this.#remember(name, wanted);
        return wanted;
      }
    }
    throw new CouchError('databases-disagree', 'other nodes keep changing this account; try again');
  }

  /**
   * Gives an account another address and then releases the former one.
   *
   * @param account the wanted account; `ended` if it was disabled or changed since: a session can be up to 5 s out of
   * date
   */
  async move(account: Account, from: string, to: string): Promise<'moved' | 'taken' | 'ended'> {
    const holder = await this.holderOf(to);
    if (holder.account !== undefined && holder.account.name !== account.name) return 'taken';
    await this.#claim(to, { account: account.name, generation: holder.generation });
    const before = await this.holderOf(from);
    const { name, email, epoch } = account;
    const moved = await this.change(name, (now) =>
      now.disabled || now.epoch !== epoch - 1 ? undefined : { ...now, email, epoch },
    );
    if (moved === undefined) return 'ended';
    if (from !== to) await this.#claim(from, { generation: before.generation + 1 });
    return 'moved';
  }

  /**
   * Deletes the account in its own name: CouchDB allows only that and an administrator. CouchDB deletes its database
   * too.
   */
  async remove(account: Account): Promise<void> {
    await this.#mustAgree();
    const identity = identityOf(account.email);
    const { generation } = await this.holderOf(identity);
    const stored = await this.#read(account.name);
    if (stored !== undefined) {
      const id = userDocumentId(account.name);
      for (const rev of [...stored.losers, stored.rev])
        await this.#users.remove(id, rev, this.#databaseLogin(account.name, stored.account.keyId));
    }
    await this.#claim(identity, { generation: generation + 1 });
    this.#remember(account.name, undefined);
  }

  /**
   * Asks CouchDB in the account's own name. Every db node learns of a new password a moment after it was set, and
   * another app node may have set it: a refusal is followed by one try with the other key. The login that worked comes
   * first for a while, since CouchDB locks an account after five wrong passwords.
   */
  async asOwner<T>(
    { name, keyId }: Pick<Account, 'name' | 'keyId'>,
    ask: (as: Credentials) => Promise<T>,
    isRefused: (answer: T) => boolean,
  ): Promise<T> {
    const other = this.#keys.newestBut(keyId);
    const answerWith = (id: string): Promise<T> => ask(this.#databaseLogin(name, id));
    if (other === undefined) return answerWith(keyId);
    const worked = this.#worked.get(name);
    const otherWorked = worked?.keyId === other && this.#nowMs() - worked.atMs < CACHE_MS;
    const [first, second] = otherWorked ? [other, keyId] : [keyId, other];
    const answer = await answerWith(first);
    if (!isRefused(answer)) return answer;
    if (this.#worked.size >= MAX_CACHED) this.#worked.clear();
    this.#worked.set(name, { keyId: second, atMs: this.#nowMs() });
    return answerWith(second);
  }

  /** CouchDB's password of an account: nobody types it, and it gives access only to this account's database. */
  #databaseLogin(name: string, keyId: string): Credentials {
    return { name, password: this.#keys.mac('database-password', name, keyId).toString('hex') };
  }

  /** Sets CouchDB's password again after a key was added. It reads first: five wrong passwords lock the account. */
  async withKnownKey(account: Account): Promise<Account | undefined> {
    if (account.keyId === this.#keys.newestId) return account;
    return this.change(account.name, (now) => ({ ...now, keyId: this.#keys.newestId }));
  }

  /**
   * Records a mail before it is sent.
   *
   * @returns the time that it is recorded with; undefined if none may be sent now
   * @throws CouchError after which nothing is recorded, as far as CouchDB can still be asked
   */
  async noteMail(identity: string): Promise<number | undefined> {
    const id = mailDocumentId(this.#keys, identity);
    const lookup = await this.#own.read(id);
    const nowMs = this.#nowMs();
    const winner = lookup.found?.[0];
    const sent = (lookup.found ?? [])
      .flatMap(({ body }) => (Array.isArray(body['sent']) ? (body['sent'] as number[]) : []))
      .filter((each) => nowMs - each < DAY_MS && each <= nowMs)
      .toSorted((a, b) => a - b);
    const last = sent.at(-1);
    if (last !== undefined && nowMs - last < MAIL_GAP_MS) return undefined;
    if (sent.length >= MAILS_A_DAY) return undefined;
    try {
      // Another request recorded one at this moment: that mail was just sent.
      return (await this.#own.write(id, { sent: [...sent, nowMs] }, winner?.rev)) ? nowMs : undefined;
    } catch (error) {
      // It may be there in spite of that: the person would try again, and be promised a mail that nobody sends.
      await this.forgetMail(identity, nowMs);
      throw error;
    }
  }

  /** The mail recorded at that time was not sent: another attempt is no second mail. Never throws. */
  async forgetMail(identity: string, atMs: number): Promise<void> {
    const id = mailDocumentId(this.#keys, identity);
    try {
      const winner = (await this.#own.read(id)).found?.[0];
      const sent = winner?.body['sent'];
      if (winner === undefined || !Array.isArray(sent) || !sent.includes(atMs)) return;
      await this.#own.write(id, { sent: (sent as number[]).filter((each) => each !== atMs) }, winner.rev);
    } catch {
      // The minute of the record ends by itself.
    }
  }

  /** Checks whether databases can be created and deleted now, by a request that only the db nodes' door refuses. */
  async #mustAgree(): Promise<void> {
    const path = `/${databaseOf('bornemisza-probe')}`;
    // `app` may not create a database, so this changes nothing; the door answers 503 before CouchDB does.
    const answer = await this.#couch.ask({ method: 'PUT', path, as: this.#app }).catch((error: unknown) => {
      throw new CouchError(
        'databases-disagree',
        'not all databases are connected and agree; try again later',
        error,
      );
    });
    if (answer.status !== 401 && answer.status !== 403)
      throw new CouchError(
        'databases-refuse',
        `CouchDB allows account app to create databases: ${answer.status}`,
      );
  }

  async #claim(
    identity: string,
    body: { readonly account?: string; readonly generation: number },
  ): Promise<void> {
    const id = addressDocumentId(this.#keys, identity);
    for (let tries = 0; tries < TRIES; tries += 1) {
      const lookup = await this.#own.read(id);
      const versions = lookup.found ?? [];
      const same = versions.find((each) => isSame(addressOf(each.body), body));
      if (same !== undefined && versions.length === 1) return;
      if (versions.some((each) => addressOf(each.body).generation > body.generation)) return;
      if (await this.#own.write(id, body, versions[0]?.rev)) {
        for (const { rev } of versions.slice(1)) await this.#own.remove(id, rev).catch(() => undefined);
        return;
      }
    }
    throw new CouchError('databases-disagree', 'other nodes keep changing this address; try again');
  }

  async #read(name: string): Promise<Stored | undefined> {
    const { found } = await this.#users.read(userDocumentId(name));
    if (found === undefined) return undefined;
    const versions = found.map(({ rev, body }) => ({ rev, body, account: accountOf(body) }));
    const merged = mergeAccounts(versions, this.#nowMs());
    if (merged === undefined) return undefined;
    return { ...merged, body: versions.find(({ rev }) => rev === merged.rev)?.body ?? {} };
  }

  /** Everything in it follows from the account, so that two nodes that write the same account write equal documents. */
  #document(account: Account): object {
    const { password } = this.#databaseLogin(account.name, account.keyId);
    const salt = this.#keys
      .lastingMac('database-password', `salt ${account.name}`)
      .toString('hex')
      .slice(0, 32);
    return {
      type: 'user',
      name: account.name,
      roles: ['account'],
      password_scheme: 'pbkdf2',
      pbkdf2_prf: 'sha256',
      iterations: 1,
      salt,
      derived_key: pbkdf2Sync(password, salt, 1, 32, 'sha256').toString('hex'),
      email: account.email,
      epoch: account.epoch,
      secret: account.secret,
      signedOut: account.signedOut,
      keyId: account.keyId,
      ...(account.disabled && { disabled: true }),
    };
  }

  #remember(name: string, account: Account | undefined): void {
    this.#cache.delete(name);
    if (this.#cache.size >= MAX_CACHED) this.#cache.delete(this.#cache.keys().next().value as string);
    this.#cache.set(name, { account, readMs: this.#nowMs() });
  }
}

function accountOf(body: Readonly<Record<string, unknown>>): Account {
  const text = (key: string): string => (typeof body[key] === 'string' ? body[key] : '');
  return {
    name: text('name'),
    email: text('email'),
    epoch: typeof body['epoch'] === 'number' ? body['epoch'] : 0,
    secret: text('secret'),
    signedOut: Array.isArray(body['signedOut']) ? (body['signedOut'] as Account['signedOut']) : [],
    keyId: text('keyId'),
    disabled: body['disabled'] === true,
  };
}

interface AddressFacts {
  readonly account: string | undefined;
  readonly generation: number;
}

function addressOf(body: Readonly<Record<string, unknown>>): AddressFacts {
  const { account, generation } = body;
  return {
    account: typeof account === 'string' ? account : undefined,
    generation: typeof generation === 'number' ? generation : 0,
  };
}

const byGeneration = (a: AddressFacts, b: AddressFacts): number => b.generation - a.generation;

function isSame(one: AddressFacts, other: { account?: string; generation: number }): boolean {
  return one.account === other.account && one.generation === other.generation;
}
