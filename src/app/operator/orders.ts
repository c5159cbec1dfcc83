import { type Account, withDisabled } from '../accounts/account.ts';
import { parseAddress } from '../accounts/address.ts';
import { databaseOf } from '../accounts/names.ts';
import type { Quota } from '../http/quota.ts';
import type { Accounts } from '../store/accounts.ts';
import { CouchError } from '../store/couch.ts';

/** One page has so many accounts: its 400 reads end within the second that an operator waits for a line. */
const PAGE = 200;

/** Why an order was not carried out, for the operator who gave it. */
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
  /** Null while the database is being made. */
  readonly usedBytes: number | null;
  readonly quotaBytes: number;
}

interface ChangedAccount extends ListedAccount {
  /** False where it was so already: nothing was written. */
  readonly changed: boolean;
}

interface OrdersDependencies {
  readonly accounts: Accounts;
  readonly quota: Quota;
}

/** What the people behind the site do with an account of somebody else. */
export class OperatorOrders {
  readonly #accounts: Accounts;
  readonly #quota: Quota;

  constructor({ accounts, quota }: OrdersDependencies) {
    this.#accounts = accounts;
    this.#quota = quota;
  }

  /** @param after `next` of the page before */
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

  /** As the person's own deletion: account, database, address. */
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
        message: `${JSON.stringify(email)} is no e-mail address`,
        next: 'give the address that the person signs in with',
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
    next: 'look for another spelling of it: bornemisza accounts list',
  });
}

/** What a failure below means for who gave the order. */
export function refusalOf(error: unknown): OrderRefusal {
  if (error instanceof OrderRefused) return error.refusal;
  const message = error instanceof Error ? error.message : String(error);
  if (!(error instanceof CouchError))
    return {
      code: 'accounts-fault',
      message,
      next: 'look at the journal: journalctl -u bornemisza-app -n 50',
    };
  switch (error.code) {
    case 'databases-disagree':
      return {
        code: 'databases-disagree',
        message,
        next: 'wait until `bornemisza members` shows all db nodes alive',
      };
    case 'not-durable':
      return { code: 'not-durable', message, next: 'run the same command again: that is harmless' };
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
