import { PluginError, type PluginErrorFacts } from '../contract.ts';

/** The server of a floating IP, by the provider's answer. */
export interface Assignment {
  /** Undefined: to none. */
  readonly to: string | undefined;
  /** The provider has an open action on it and accepts no call for it. */
  readonly busy: boolean;
  /** Its location, from which a server at this node's location cannot have it. */
  readonly elsewhere?: string | undefined;
}

/** A service that assigns floating IPs. Each call is bounded in time and size, and throws {@link ProviderFault}. */
export interface FloatingProvider {
  /** In messages, e.g. `DigitalOcean`. */
  readonly label: string;
  /** Calls of the API that one observation of all addresses takes. */
  callsFor(addresses: readonly string[]): number;
  /** The provider's ID of this server. Requested once. */
  self(signal: AbortSignal): Promise<string>;
  /** All addresses, or a fault: an unreadable answer is not `to: undefined`. */
  look(addresses: readonly string[], self: string, signal: AbortSignal): Promise<Map<string, Assignment>>;
  /** Resolves when the provider has accepted the request; a later observation shows whether it is done. */
  assign(address: string, self: string, signal: AbortSignal): Promise<void>;
  /** An observation without a call: whether a floating IP is assigned to this server. Undefined: not known. */
  active?(signal: AbortSignal): Promise<boolean | undefined>;
}

/** A failed call. `unsure`: the request may be carried out nevertheless. */
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

/** It did not answer, or not clearly. */
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
