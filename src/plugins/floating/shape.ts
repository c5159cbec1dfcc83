import type { Finding } from '../contract.ts';

/** What `bornemisza floating show` shows. */
export interface FloatingShown {
  readonly provider: string;
  /** This server at the provider; null: not known. */
  readonly server: string | null;
  readonly why: string;
  readonly addresses: readonly {
    readonly address: string;
    /** null: to no server, or never asked with an answer. */
    readonly server: string | null;
    /** HOST/ROLE, `nobody`, or that it is no member. */
    readonly owner: string;
    readonly known: boolean;
    readonly busy: boolean;
    /** The device of this host that carries it. */
    readonly device: string | null;
  }[];
  readonly findings: readonly Finding[];
}
