import type { PlannedChange } from '../contract.ts';
import type { ConfigFile } from './config.ts';
import type { Identity, Mark } from './observed.ts';

/** The changes of this node's daemon to its CouchDB, or, as coordinator, to the cluster. */
export type CouchDbChange = PlannedChange &
  (
    | { readonly kind: 'file'; readonly file: ConfigFile }
    | { readonly kind: 'restart' }
    /** Writes this node's identity into the data directory and beside the settings. */
    | { readonly kind: 'marker'; readonly identity: Identity }
    | { readonly kind: 'forget-marker' }
    /** Blocked: `validate` throws this, and nothing is changed. */
    | {
        readonly kind: 'refuse';
        readonly code: string;
        readonly next: string;
        readonly outcome: 'retry' | 'terminal';
      }
    | { readonly kind: 'maintenance'; readonly node: string }
    /** Ends this node's own maintenance. The first `busy` of `databases` are being written to. */
    | {
        readonly kind: 'open';
        readonly node: string;
        readonly databases: readonly string[];
        readonly busy: number;
        readonly sources: readonly string[];
      }
    /** The first document of a joiner. Exactly `{"decom":true}`: see apply.ts. */
    | { readonly kind: 'admit'; readonly node: string; readonly arbiter: string }
    | {
        readonly kind: 'node-document';
        readonly node: string;
        readonly arbiter: string;
        readonly decom: boolean;
        readonly mark: Mark | undefined;
      }
    /** `through`: the leaver itself, so that everybody learns it; the arbiter where the leaver is gone. */
    | {
        readonly kind: 'expel';
        readonly node: string;
        readonly through: string;
        readonly witnesses: readonly string[];
        /** It is ignored for a while afterwards. */
        readonly shun: boolean;
      }
    | { readonly kind: 'create-database'; readonly database: string }
    /** Its name and password are secrets: they are in no plan. */
    | { readonly kind: 'app-user' }
    | {
        readonly kind: 'add-copies';
        readonly database: string;
        readonly node: string;
        readonly ranges: readonly string[];
        readonly arbiter: string;
        readonly sources: readonly string[];
        readonly members: readonly string[];
      }
    | {
        readonly kind: 'remove-copies';
        readonly database: string;
        readonly node: string;
        readonly arbiter: string;
        /** Nodes that keep copies; each is proved complete against `node` first, unless `node` is gone for good. */
        readonly stayers: readonly string[];
        readonly gone: boolean;
        readonly members: readonly string[];
      }
    /** Sets `_security` and `_revs_limit` of this node's copies to what all other copies have. */
    | {
        readonly kind: 'carry';
        readonly database: string;
        readonly node: string;
        readonly sources: readonly string[];
      }
    | { readonly kind: 'sync'; readonly database: string }
    | {
        readonly kind: 'repair-map';
        readonly database: string;
        readonly arbiter: string;
        readonly members: readonly string[];
      }
    | {
        readonly kind: 'repair-node-document';
        readonly node: string;
        readonly arbiter: string;
        readonly losers: readonly string[];
      }
  );

export type ChangeOf<K extends CouchDbChange['kind']> = Extract<CouchDbChange, { readonly kind: K }>;

export interface Alarm {
  readonly code: string;
  readonly message: string;
  readonly next: string;
}

/** A plan has only the next steps: thousands of databases need many runs. */
export const CHANGES_AT_ONCE = 64;

/** Maintenance on. It ends by the node's own `open` only. */
export function maintenance(node: string, why: string): ChangeOf<'maintenance'> {
  return { kind: 'maintenance', node, summary: `${node}: maintenance on (${why})` };
}

export function refuse(
  code: string,
  summary: string,
  next: string,
  outcome: 'retry' | 'terminal',
): ChangeOf<'refuse'> {
  return { kind: 'refuse', code, summary, next, outcome };
}

export function listed(names: readonly string[]): string {
  const shown = names.slice(0, 10).join(', ');
  return names.length > 10 ? `${shown} and ${names.length - 10} more` : shown;
}
