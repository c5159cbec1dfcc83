import { PluginError, type PluginErrorFacts } from '../contract.ts';

/** To which server a floating IP is assigned, by the provider's own answer. */
export interface Assignment {
  /** Undefined: to none. */
  readonly to: string | undefined;
  /** The provider still works on it, and takes no call for it. */
  readonly busy: boolean;
  /** It is in this place, where a server of this node's place cannot have it. */
  readonly elsewhere?: string | undefined;
}

/** Where floating IPs are assigned. Each call is bounded in time and size, and throws {@link ProviderFault}. */
export interface FloatingProvider {
  /** In messages, e.g. `DigitalOcean`. */
  readonly label: string;
  /** Calls of the API that one observation of all addresses takes. */
  callsFor(addresses: readonly string[]): number;
  /** The provider's name of this server. Asked once. */
  self(signal: AbortSignal): Promise<string>;
  /** Every one of the addresses, or a fault: an answer that cannot be read is not `to: undefined`. */
  look(addresses: readonly string[], self: string, signal: AbortSignal): Promise<Map<string, Assignment>>;
  /** The provider has accepted the order; a later observation shows whether it is done. */
  assign(address: string, self: string, signal: AbortSignal): Promise<void>;
  /** An observation without a call: whether a floating IP is assigned to this server. Undefined: not known. */
  active?(signal: AbortSignal): Promise<boolean | undefined>;
}

/** A call that failed. `unsure`: what it ordered may be done nevertheless. */
export class ProviderFault extends PluginError {
  readonly unsure: boolean;
  /** No call before this time (monotonic ms). */
  readonly notBeforeMs: number | undefined;

  constructor(
    facts: Omit<PluginErrorFacts, 'outcome' | 'keepsChanges'>,
    more: { readonly unsure?: boolean; readonly notBeforeMs?: number } = {},
  ) {
    super({ ...facts, outcome: 'retry', keepsChanges: true });
    this.unsure = more.unsure ?? false;
    this.notBeforeMs = more.notBeforeMs;
  }
}

/** It did not answer, or with something that says neither yes nor no. */
export function notAnswering(label: string, why: string): ProviderFault {
  return new ProviderFault(
    {
      code: 'floating-api-down',
      message: `${label} does not answer about the floating IP: ${why}; it stays where it is`,
      next: `check the status page of ${label}, and whether this host reaches its API; it is tried again`,
    },
    { unsure: true },
  );
}
