import { type Account, withDisabled } from '../accounts/account.ts';
import { parseAddress } from '../accounts/address.ts';
import { databaseOf } from '../accounts/names.ts';
import type { Quota } from '../http/quota.ts';
import type { Accounts } from '../store/accounts.ts';
import { CouchError } from '../store/couch.ts';

/** The accounts on one page: its 400 reads end within a second. */
const PAGE = 200;

/** Why an order failed, for the operator. */
interface OrderRefusal {
  readonly code: string;
  readonly message: string;
  readonly next: string;
}

class OrderRefused extends Error {
  readonly refusal: OrderRefusal;

  constructor(refusal: OrderRefusal, cause?: unknown) {
    super(refusal.message, { cause });
    this.name = 'OrderRefused';
    this.refusal = refusal;
  }
}

interface ListedAccount {
  readonly email: string;
  readonly account: string;
  readonly disabled: boolean;
}

interface ShownAccount extends ListedAccount {
  readonly database: string;
  /** Null while the database is being created. */
  readonly usedBytes: number | null;
  readonly quotaBytes: number;
}

interface ChangedAccount extends ListedAccount {
  /** False if nothing had to be written. */
  readonly changed: boolean;
}

interface OrdersDependencies {
  readonly accounts: Accounts;
  readonly quota: Quota;
}

/** What an operator of the site does with other people's accounts. */
export class OperatorOrders {
  readonly #accounts: Accounts;
  readonly #quota: Quota;

  constructor({ accounts, quota }: OrdersDependencies) {
    this.#accounts = accounts;
    this.#quota = quota;
  }

  /** @param after `next` of the previous page */
  async list(
    after?: string,
  ): Promise<{ readonly accounts: readonly ListedAccount[]; readonly next?: string }> {
    const { accounts, next } = await this.#accounts.page(after, PAGE);
    return { accounts: accounts.map(listed), ...(next !== undefined && { next }) };
  }

  async show(email: string): Promise<ShownAccount> {
    const account = await this.#holder(email);
    return {
      ...listed(account),
      database: databaseOf(account.name),
      usedBytes: (await this.#quota.used(account)) ?? null,
      quotaBytes: this.#quota.bytes,
    };
  }

  /** The sessions end at this node at once, at the others when they read the account again. */
  async disable(email: string): Promise<ChangedAccount> {
    return this.#set(email, true, withDisabled);
  }

  async enable(email: string): Promise<ChangedAccount> {
    return this.#set(email, false, (now) => ({ ...now, disabled: false }));
  }

  /** The same as the person's own deletion: account, database, address. */
  async delete(email: string): Promise<ChangedAccount> {
    const account = await this.#holder(email);
    await this.#accounts.remove(account);
    return { ...listed(account), changed: true };
  }

  async #set(email: string, disabled: boolean, change: (now: Account) => Account): Promise<ChangedAccount> {
    const account = await this.#holder(email);
    if (account.disabled === disabled) return { ...listed(account), changed: false };
    const changed = await this.#accounts.change(account.name, change);
    if (changed === undefined) throw unknown(email);
    return { ...listed(changed), changed: true };
  }

  async #holder(email: string): Promise<Account> {
    const address = parseAddress(email);
    if (address === undefined)
      throw new OrderRefused({
        code: 'account-address',
        message: `${JSON.stringify(email)} is not an e-mail address`,
        next: 'pass the address with which the person signs in',
      });
    const { account } = await this.#accounts.holderOf(address.identity);
    if (account === undefined) throw unknown(address.deliver);
    return account;
  }
}

const listed = ({ email, name, disabled }: Account): ListedAccount => ({ email, account: name, disabled });

function unknown(email: string): OrderRefused {
  return new OrderRefused({
    code: 'account-unknown',
    message: `nobody has an account with ${email}`,
    next: 'check the spelling: bornemisza accounts list',
  });
}

/** An error of the store, in words for the operator. */
export function refusalOf(error: unknown): OrderRefusal {
  if (error instanceof OrderRefused) return error.refusal;
  const message = error instanceof Error ? error.message : String(error);
  if (!(error instanceof CouchError))
    return {
      code: 'accounts-fault',
      message,
      next: 'see the journal: journalctl -u bornemisza-app -n 50',
    };
  switch (error.code) {
    case 'databases-disagree':
      return {
        code: 'databases-disagree',
        message,
        next: 'wait until `bornemisza members` shows all db nodes alive',
      };
    case 'not-durable':
      return { code: 'not-durable', message, next: 'run the same command again: a second run is harmless' };
    case 'databases-refuse':
      return { code: 'databases-refuse', message, next: 'run on a db node: bornemisza doctor' };
    case 'databases-unreachable':
      return {
        code: 'databases-unreachable',
        message,
        next: 'see why: bornemisza status; then run it again',
      };
  }
}
