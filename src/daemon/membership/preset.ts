/**
 * Every number of the protocol that may differ between networks: default for each preset, unit and reason in one row.
 * What follows from the numbers (lan): a silent host is accused 1.05 s after the first unanswered ping, so that a pause
 * of one second disturbs nobody, and declared dead by all about 0.5 s later; a crashed process in about 0.3 s.
 */
interface Row {
  readonly lan: number;
  readonly wan: number;
  readonly test: number;
  readonly unit: 'ms' | 'count' | 'per second' | 'factor';
  readonly reason: string;
}

const HOUR = 3_600_000;

export const presetFields = {
  probeIntervalMs: {
    lan: 1000,
    wan: 3000,
    test: 200,
    unit: 'ms',
    reason:
      'A link that was silent this long is pinged by one of its ends; half of it is the mean wait of detection.',
  },
  linksPerInterval: {
    lan: 6,
    wan: 6,
    test: 6,
    unit: 'count',
    reason:
      'With more links each is pinged less often: the first two of many watchers find a silence as soon, ' +
      'at a flat cost.',
  },
  probeTimeoutMs: {
    lan: 450,
    wan: 1500,
    test: 90,
    unit: 'ms',
    reason:
      'Two retransmissions of TCP (200 + 400 ms) would be 600; the first alone must not start indirect probes.',
  },
  indirectTimeoutMs: {
    lan: 600,
    wan: 2500,
    test: 120,
    unit: 'ms',
    reason: 'With the direct timeout a little over one second: a pause of one second is not even suspected.',
  },
  indirectProbes: {
    lan: 3,
    wan: 3,
    test: 2,
    unit: 'count',
    reason: 'One would do in a full mesh; above it a random relay has a link to the target one time in four.',
  },
  dialTimeoutMs: {
    lan: 3000,
    wan: 8000,
    test: 600,
    unit: 'ms',
    reason:
      'A lost SYN is repeated after one second, a handshake on a busy node takes its time: no hurry to accuse.',
  },
  closedSpreadMs: {
    lan: 80,
    wan: 300,
    test: 20,
    unit: 'ms',
    reason:
      'All who were linked to a crashed process know at once: spread out, so that two accuse and not all.',
  },
  suspicionMs: {
    lan: 340,
    wan: 1600,
    test: 68,
    unit: 'ms',
    reason:
      'What two accusers leave to the accused for its refutation: several times the spread of a gossip message.',
  },
  lastCallMs: {
    lan: 60,
    wan: 400,
    test: 12,
    unit: 'ms',
    reason: 'Then some others are asked whether they know of a refutation that is stuck on its way to us.',
  },
  closedSuspicionMs: {
    lan: 80,
    wan: 600,
    test: 20,
    unit: 'ms',
    reason:
      'Two hosts were refused by the subject’s own kernel: only a process that is back already could refute.',
  },
  fullSuspicionMs: {
    lan: 5000,
    wan: 15_000,
    test: 1000,
    unit: 'ms',
    reason: 'Nobody is there to be second witness: outlast four retransmissions of TCP (200 ms to 3 s).',
  },
  lagToleranceMs: {
    lan: 100,
    wan: 100,
    test: 60,
    unit: 'ms',
    reason:
      'A loop this late cannot judge others: garbage collection stays below, a stopped process is far above.',
  },
  verdictGraceMs: {
    lan: 500,
    wan: 2000,
    test: 100,
    unit: 'ms',
    reason: 'After a lag of its own a node reads what waited in its sockets before it condemns anybody.',
  },
  healthScoreMax: {
    lan: 6,
    wan: 6,
    test: 6,
    unit: 'count',
    reason: 'Four times the timeouts at most: a node in a bad way still notices deaths, after seconds.',
  },
  healthStretch: {
    lan: 0.5,
    wan: 0.5,
    test: 0.5,
    unit: 'factor',
    reason: 'Each point lengthens own timeouts by half of their length.',
  },
  healthRecoveryMs: {
    lan: 1500,
    wan: 5000,
    test: 300,
    unit: 'ms',
    reason: 'One point is forgiven for each such time with a probe answered in time.',
  },
  linkSilentMs: {
    lan: 10_000,
    wan: 30_000,
    test: 2000,
    unit: 'ms',
    reason: 'Others reach the peer, this link does not: dial again instead of waiting for TCP’s backoff.',
  },
  fullMeshMembers: {
    lan: 12,
    wan: 12,
    test: 12,
    unit: 'count',
    reason:
      'Every link is one more copy of each gossip message and a handshake at each start: beyond this a ' +
      'full mesh is expensive.',
  },
  minLinks: {
    lan: 6,
    wan: 6,
    test: 6,
    unit: 'count',
    reason: 'Each link is watched from both ends: six watchers leave four when two fail together.',
  },
  maxLinks: {
    lan: 10,
    wan: 10,
    test: 10,
    unit: 'count',
    reason: 'Room above the minimum, so that one more link does not start a chain of closing and dialling.',
  },
  calmLinks: {
    lan: 7,
    wan: 7,
    test: 7,
    unit: 'count',
    reason: 'What is above is given back now and then, where the other end can spare it: links cost bytes.',
  },
  linksIntervalMs: {
    lan: 1000,
    wan: 2000,
    test: 100,
    unit: 'ms',
    reason: 'How soon a lost link is replaced; well under the time in which a second watcher would fail.',
  },
  redialMinMs: {
    lan: 500,
    wan: 1000,
    test: 50,
    unit: 'ms',
    reason: 'The first try again; a daemon needs about this long to start.',
  },
  redialMaxMs: {
    lan: 60_000,
    wan: 120_000,
    test: 1000,
    unit: 'ms',
    reason: 'For ever, but seldom, where many are lost: any one pair is enough to end a partition.',
  },
  redialSpacingMs: {
    lan: 5000,
    wan: 10_000,
    test: 500,
    unit: 'ms',
    reason:
      'Between two dials to lost members, whichever: one lost member is found again in this time, not in 60 s.',
  },
  redialsPerRound: {
    lan: 2,
    wan: 2,
    test: 4,
    unit: 'count',
    reason: 'Half of the cluster away must not mean hundreds of dials a minute from every node.',
  },
  flushMs: {
    lan: 20,
    wan: 50,
    test: 5,
    unit: 'ms',
    reason: 'Changes that come together travel together: one gossip message costs 8 ms of CPU on every node.',
  },
  stormFlushMs: {
    lan: 250,
    wan: 500,
    test: 50,
    unit: 'ms',
    reason: 'While the cluster is over its gossip budget, what is queued rides on streams this often.',
  },
  ownBurst: {
    lan: 2,
    wan: 2,
    test: 2,
    unit: 'count',
    reason: 'A change and its correction go out at once, then a node is heard once a second.',
  },
  ownReserve: {
    lan: 1,
    wan: 1,
    test: 1,
    unit: 'count',
    reason:
      'One more for what decides about traffic (health, maintenance, services): a tag that changes just ' +
      'before must not delay it.',
  },
  ownIntervalMs: {
    lan: 1000,
    wan: 1000,
    test: 100,
    unit: 'ms',
    reason: 'At most one own change a second on top of the burst; later ones are folded into it.',
  },
  loadIntervalMs: {
    lan: 300_000,
    wan: 300_000,
    test: 2000,
    unit: 'ms',
    reason: 'Load alone is worth no message: it rides with the next change or, this often, with a sync.',
  },
  gossipPerSecond: {
    lan: 5,
    wan: 5,
    test: 20,
    unit: 'per second',
    reason: 'Of the whole cluster: five messages are 4 % of a core on every node.',
  },
  fanout: {
    lan: 3,
    wan: 3,
    test: 3,
    unit: 'count',
    reason: 'Links that get what gossip has no room for: three spread to 30 members in about four rounds.',
  },
  syncIntervalMs: {
    lan: 30_000,
    wan: 60_000,
    test: 2000,
    unit: 'ms',
    reason: 'Repairs what gossip lost; with equal tables it costs two small messages.',
  },
  syncRetryMs: {
    lan: 1000,
    wan: 3000,
    test: 100,
    unit: 'ms',
    reason: 'Until its first sync a node removes nothing, so it asks the next peer soon.',
  },
  goodbyeWindowMs: {
    lan: 10_000,
    wan: 10_000,
    test: 1000,
    unit: 'ms',
    reason: 'A daemon restarts in under a second, a package upgrade in a few.',
  },
  goodbyeWindowMaxMs: {
    lan: 30_000,
    wan: 30_000,
    test: 3000,
    unit: 'ms',
    reason: 'Whatever a record says: longer would hide a death.',
  },
  goodbyeEveryMs: {
    lan: 300_000,
    wan: 300_000,
    test: 10_000,
    unit: 'ms',
    reason: 'A daemon in a crash loop that says goodbye each time is not restarting, it is broken.',
  },
  reapDeadMs: {
    lan: 72 * HOUR,
    wan: 72 * HOUR,
    test: 60_000,
    unit: 'ms',
    reason: 'A machine that failed on Friday is still listed on Monday.',
  },
  reapLeftMs: {
    lan: 24 * HOUR,
    wan: 24 * HOUR,
    test: 30_000,
    unit: 'ms',
    reason: 'A member that left is of interest for a day.',
  },
  tombstoneMs: {
    lan: 168 * HOUR,
    wan: 168 * HOUR,
    test: 120_000,
    unit: 'ms',
    reason: 'Longer than any member may still hold the reaped record, so that it cannot come back by a sync.',
  },
  reapIntervalMs: {
    lan: 60_000,
    wan: 60_000,
    test: 1000,
    unit: 'ms',
    reason: 'Nothing depends on the minute in which a member is forgotten.',
  },
} as const satisfies Readonly<Record<string, Row>>;

type PresetName = 'lan' | 'wan' | 'test';
export type Preset = { readonly [Field in keyof typeof presetFields]: number };

function column(name: PresetName): Preset {
  const rows = Object.entries(presetFields).map(([field, row]) => [field, row[name]] as const);
  return Object.freeze(Object.fromEntries(rows)) as Preset;
}

/**
 * `lan`: one provider’s private network. `wan`: several sites. `test`: about five times faster than lan, for suites.
 */
export const presets: Readonly<Record<PresetName, Preset>> = Object.freeze({
  lan: column('lan'),
  wan: column('wan'),
  test: column('test'),
});
