/** What the benchmark and a member's process (member.ts) say to each other, a line of JSON each. */
export type Command =
  | { readonly kind: 'tag'; readonly value: string }
  /** Attacks all linked members until `calm`. */
  | { readonly kind: 'flood'; readonly attack: Attack }
  | { readonly kind: 'calm' }
  | { readonly kind: 'leave' | 'departed' | 'goodbye' | 'figures' | 'end' };

/** What a member that was taken over may send at its full rate (attacks.ts). All of it is valid, one by one. */
export const ATTACKS = ['accusations', 'records', 'large', 'gossip', 'mixed', 'replay'] as const;
export type Attack = (typeof ATTACKS)[number];

export interface Figures {
  readonly kind: 'figures';
  readonly links: number;
  /** Connections that ended without either side having wanted it. */
  readonly linksLost: number;
  /** Bytes in use on V8's heap after a full collection; -1 where the process may not collect. */
  readonly heapBytes: number;
  /** Of them, compiled code and its tables. */
  readonly codeBytes: number;
  /** Sockets, timers, files and whatever else keeps the process busy. */
  readonly handles: number;
  readonly driver: Readonly<Record<string, number>>;
  readonly transport: Readonly<Record<string, number>>;
}

export type Said =
  | { readonly kind: 'joining' }
  /** A link is up. */
  | { readonly kind: 'linked'; readonly name: string }
  | {
      readonly kind: 'saw';
      readonly name: string;
      readonly state: string;
      readonly tag: string | undefined;
    }
  | Figures;
