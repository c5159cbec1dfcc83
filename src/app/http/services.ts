import type { KeyRing } from '../accounts/keys.ts';
import type { AppConfig } from '../config.ts';
import type { Language } from '../languages.ts';
import type { Accounts } from '../store/accounts.ts';
import type { Couch, Credentials } from '../store/couch.ts';
import type { PasswordHashes } from '../store/hashing.ts';
import type { Window } from './limits.ts';
import type { Quota } from './quota.ts';

/** What the routes work with. */
export interface Services {
  readonly config: AppConfig;
  readonly keys: KeyRing;
  readonly couch: Couch;
  /** Account `app` of CouchDB. */
  readonly app: Credentials;
  readonly accounts: Accounts;
  readonly hashes: PasswordHashes;
  readonly quota: Quota;
  readonly mail: AccountMail;
  readonly limits: {
    /** Failed sign-ins of one account from one network. */
    readonly failures: Window;
    /** Failed sign-ins of one account from browsers that never signed in to it. */
    readonly strangers: Window;
  };
  readonly nowMs: () => number;
  readonly log: (message: string, facts?: Readonly<Record<string, unknown>>) => void;
  /** The service is about to end: health reports it before the port closes. */
  readonly ending: () => boolean;
}

export type MailKind =
  | 'confirm'
  | 'taken'
  | 'reset'
  | 'no-account'
  | 'disabled'
  | 'change-email'
  | 'password-changed'
  | 'email-changed';

export interface AccountMail {
  /** Resolves when the mail server has accepted it. @throws Problem `mail-unavailable` */
  send(
    kind: MailKind,
    to: string,
    facts: { readonly link?: string; readonly language: Language },
  ): Promise<void>;
}
