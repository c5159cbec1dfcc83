import { accountEntry, accountFailedEntry } from '../audit/entries.ts';
import type { AuditTrail } from '../audit/trail.ts';
import type { AccountsAnswer, ChangedAccount, ShownAccount } from '../control/api.ts';
import type { AccountVerb } from '../control/server.ts';
import { hasNextStep, OperatorError } from '../errors.ts';
import type { Role } from '../membership/types.ts';
import { ANSWERS, askAppTier } from './app-tier.ts';

const DONE: Readonly<Record<AccountVerb, string>> = {
  disable: 'disabled',
  enable: 'enabled',
  delete: 'deleted with its database',
};
/** Refused before anything was changed. */
const NOTHING_DONE = new Set(['account-unknown', 'account-address', 'app-tier-not-running']);

interface AccountOrdersDependencies {
  readonly socket: string;
  readonly audit: Pick<AuditTrail, 'append'>;
}

/** Orders of an operator about people's accounts: the app tier does them, and each change is one audit entry. */
export class AccountOrders {
  readonly #self: { readonly name: string; readonly role: Role };
  readonly #dependencies: AccountOrdersDependencies;

  constructor(self: { readonly name: string; readonly role: Role }, dependencies: AccountOrdersDependencies) {
    this.#self = self;
    this.#dependencies = dependencies;
  }

  async list(after: string | undefined): Promise<AccountsAnswer> {
    const body = after === undefined ? {} : { after };
    return askAppTier(this.#socket(), { order: 'list', body, schema: ANSWERS.list });
  }

  async show(email: string): Promise<ShownAccount> {
    return askAppTier(this.#socket(), { order: 'show', body: { email }, schema: ANSWERS.show });
  }

  async change(verb: AccountVerb, email: string): Promise<ChangedAccount> {
    const socket = this.#socket();
    const { name } = this.#self;
    const { audit } = this.#dependencies;
    try {
      const answer = await askAppTier(socket, { order: verb, body: { email }, schema: ANSWERS.change });
      if (answer.changed) audit.append(accountEntry(name, answer.account, DONE[verb]));
      return answer;
    } catch (error) {
      if (hasNextStep(error) && !NOTHING_DONE.has(error.code)) {
        const { code, message, next } = error;
        audit.append(accountFailedEntry(name, verb, { code, message, next }));
      }
      throw error;
    }
  }

  #socket(): string {
    if (this.#self.role === 'app') return this.#dependencies.socket;
    throw new OperatorError(
      'accounts-elsewhere',
      'this is a db node; only app nodes have accounts',
      'run it on an app node',
    );
  }
}
