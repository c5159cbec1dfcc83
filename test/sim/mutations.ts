import type { Rule } from '../../src/daemon/membership/core.ts';
import type { Invariant } from './invariants.ts';
import type { Action, Scenario } from './scenario.ts';

/** For each rule of the protocol: scenarios that it carries, and the invariant that falls when it is taken out. */
export interface Mutation {
  readonly rule: Rule;
  readonly invariant: Invariant;
  readonly scenarios: readonly Scenario[];
}

const scenario = (seed: number, nodes: number, actions: readonly Action[]): Scenario => ({
  seed,
  nodes,
  drifts: Array.from({ length: nodes }, () => 1),
  actions,
});

const seeds = (count: number): number[] => Array.from({ length: count }, (_, index) => index + 1);

const allBut = (nodes: number, one: number): number[] =>
  Array.from({ length: nodes }, (_, host) => host).filter((host) => host !== one);

export const MUTATIONS: readonly Mutation[] = [
  {
    rule: 'incarnation',
    invariant: 'no-return-without-incarnation',
    // A healed partition: each side holds records of the other that are as old as its death verdicts.
    scenarios: seeds(3).map((seed) =>
      scenario(seed, 5, [{ atMs: 5000, kind: 'partition', hosts: [0, 1], oneWay: false, forMs: 15_000 }]),
    ),
  },
  {
    rule: 'second-observer',
    invariant: 'two-accusers-or-alone',
    scenarios: seeds(3).map((seed) =>
      scenario(seed, 5, [{ atMs: 5000, kind: 'cut', host: 3, forMs: 20_000 }]),
    ),
  },
  {
    rule: 'refutation',
    invariant: 'views-agree',
    scenarios: seeds(3).map((seed) =>
      scenario(seed, 5, [{ atMs: 5000, kind: 'cut', host: 3, forMs: 20_000 }]),
    ),
  },
  {
    rule: 'local-health',
    invariant: 'nobody-healthy-dies',
    // Two accuse a healthy member, a third is stopped before it hears the refutation: it wakes to an overdue verdict.
    scenarios: seeds(3).map((seed) =>
      scenario(seed, 6, [
        { atMs: 5000, kind: 'slander', host: 1, subject: 3 },
        { atMs: 5000, kind: 'slander', host: 2, subject: 3 },
        { atMs: 5000.1, kind: 'pause', host: 0, forMs: 900 },
      ]),
    ),
  },
  {
    rule: 'local-health',
    invariant: 'slow-node-blames-itself',
    // A member is stopped for a second; who has asked others about it is stopped before it can hear the answers.
    scenarios: seeds(12).map((seed) =>
      scenario(seed, 2 + (seed % 3), [
        { atMs: 5000, kind: 'pause', host: 1, forMs: 1000 },
        { atMs: 5900, kind: 'pause', host: 0, forMs: 1000 },
      ]),
    ),
  },
  {
    rule: 'last-call',
    invariant: 'nobody-healthy-dies',
    // Two accuse a healthy member. To one of thirty its refutation is lost on every way, and again after TCP's 200 ms.
    // (Where all whom that one asks are stuck behind lost segments as well nothing helps: not so with these seeds.)
    scenarios: seeds(3).map((seed) =>
      scenario(seed, 30, [
        { atMs: 5000, kind: 'partition', hosts: allBut(30, 0), oneWay: true, forMs: 205 },
        { atMs: 5000.1, kind: 'slander', host: 1, subject: 3, evidence: 'silent' },
        { atMs: 5000.1, kind: 'slander', host: 2, subject: 3, evidence: 'silent' },
      ]),
    ),
  },
];
