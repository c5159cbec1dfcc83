import type { Member, MembershipView } from '../membership/types.ts';
import {
  hostOf,
  isPossible,
  merged,
  parseWord,
  type Rollout,
  ROLLOUT_TAG,
  stopInWords,
} from '../rollout/policy.ts';

/**
 * The conditions that people are notified of, read only from the membership view, so that every node gets the same
 * result: a node puts into its record what only it can see (its guards, its site's certificate). Pure.
 */

export type ConditionKind =
  | 'node-dead'
  | 'guard-holding'
  | 'announcement-failing'
  | 'floating-failing'
  | 'certificate-ending'
  | 'certificate-failing'
  | 'rollout-stopped'
  | 'dns-failing'
  | 'disk-full'
  | 'link-down'
  | 'memory-pressure'
  | 'unit-restarts';

export interface Condition {
  /** The same on every node that sees it; a new one if the same thing happens again. */
  readonly key: string;
  readonly kind: ConditionKind;
  /** HOST/ROLE, a role, or the name of a certificate. */
  readonly subject: string;
  /** One sentence without its full stop. */
  readonly what: string;
  /** The next step. */
  readonly next: string;
  /** It was announced (a stop, a reboot, maintenance), so it is sent only if it lasts. */
  readonly announced: boolean;
}

interface ConditionInput {
  readonly view: MembershipView;
  /**
   * Members' certificates by HOST/ROLE: their end in ms since the epoch. Of members that are admitted and not revoked.
   */
  readonly certificates: ReadonlyMap<string, number>;
  readonly wallMs: number;
  /** How long this process has been running. */
  readonly upMs: number;
}

/** If a node's certificate ends this soon, its renewal has failed for a month; the site's is renewed by hand. */
export const CERTIFICATE_ENDING_MS = 14 * 24 * 3_600_000;
/** A provider that is silent for some minutes does no harm: the records stay. */
export const DNS_FAILING_MS = 10 * 60_000;
/**
 * A node that starts reaches its first peer within seconds; after a power failure of the whole site it takes a minute.
 */
const LONELY_AFTER_MS = 120_000;

/** Tags of a member's record for conditions that only it can see. */
export const NOTICE_TAG = 'notice';

/** Of a record, as in membership/limits.ts. */
const MOST_TAGS = 16;

/**
 * At most as many tags as a record holds: with more it would keep its former facts. Marks of what was already sent are
 * left out first; the next in order then sends it again.
 */
export function fittingTags(tags: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  const names = Object.keys(tags);
  const sent = names.filter((name) => /^told\d*$/.test(name)).sort();
  const out = new Set(sent.slice(Math.max(0, sent.length - Math.max(0, names.length - MOST_TAGS))));
  return out.size === 0 ? tags : Object.fromEntries(Object.entries(tags).filter(([name]) => !out.has(name)));
}

/** The content of a node's tag, in at most 64 bytes. */
export interface Notices {
  /** Roles whose landslide this node holds. */
  readonly landslides: readonly ('app' | 'db')[];
  /** This node keeps the floating IP although it is down. */
  readonly lastStanding: boolean;
  /** End of the site's certificate in ms since the epoch, if it is near. */
  readonly siteCertificateEndMs: number | undefined;
  /** It has the key for the DNS records and could not update them for ten minutes. */
  readonly dnsFails: boolean;
}

const DNS_FAILS = 'dns';

export function noticeTag(notices: Notices): string {
  const { landslides, lastStanding, siteCertificateEndMs, dnsFails } = notices;
  return [
    ...landslides.map((role) => `landslide-${role}`),
    ...(lastStanding ? ['last-standing'] : []),
    ...(siteCertificateEndMs === undefined ? [] : [`site-${dayOf(siteCertificateEndMs)}`]),
    ...(dnsFails ? [DNS_FAILS] : []),
  ].join(' ');
}

/** All present conditions. Before the first sync nothing is known of others: only that this node is alone. */
export function conditionsOf(input: ConditionInput): Condition[] {
  const { view, upMs } = input;
  if (!view.synced) return upMs < LONELY_AFTER_MS ? [] : lonely(view);
  return [
    ...deaths(input),
    ...guards(view),
    ...announcements(view),
    ...assignments(view),
    ...certificates(input),
    ...orders(view),
    ...rollouts(input),
    ...records(view),
    ...disks(view),
    ...machines(view),
  ];
}

function lonely(view: MembershipView): Condition[] {
  const self = view.members.find((member) => member.self);
  if (self === undefined) return [];
  const { name } = self.record;
  return [
    {
      key: `lonely ${name}`,
      kind: 'guard-holding',
      subject: name,
      what: `${name} has reached no other node since its start and keeps the former configuration`,
      next: 'wait if the others are starting; else check its private network: bornemisza doctor',
      announced: false,
    },
  ];
}

function deaths({ view, certificates: admitted }: ConditionInput): Condition[] {
  // A replacement may have the name of a dead node.
  const names = new Set(heard(view).map(({ record }) => record.name));
  return view.members
    .filter(({ state, record: { name } }) => state === 'dead' && admitted.has(name) && !names.has(name))
    .map(({ record }) => {
      const { name, incarnation, goodbye, maintenance } = record;
      const said = goodbye === undefined ? undefined : GOODBYES[goodbye.kind];
      return {
        key: `dead ${name} ${incarnation}`,
        kind: 'node-dead' as const,
        subject: name,
        what:
          `${name} is dead: ` +
          (said === undefined
            ? 'its daemon is no longer reachable'
            : `it announced: ${said}, and is not back`),
        next:
          'bring its machine or its private network back; if it is gone for good: bornemisza remove ' +
          `${name}${record.role === 'db' ? ' --dead' : ''}`,
        announced: maintenance || goodbye?.kind === 'stop' || goodbye?.kind === 'shutdown',
      };
    });
}

const GOODBYES = {
  restart: 'its daemon restarts',
  stop: 'its daemon is stopped',
  shutdown: 'its machine shuts down',
} as const;

/** Members whose record is current. */
function heard(view: MembershipView): readonly Member[] {
  return view.members.filter(({ state }) => state === 'alive' || state === 'suspect');
}

/** Names of the members with this code in their notice tag. */
function saying(view: MembershipView, word: string): string[] {
  return heard(view)
    .filter(({ record }) => (record.tags[NOTICE_TAG] ?? '').split(' ').includes(word))
    .map(({ record }) => record.name);
}

function guards(view: MembershipView): Condition[] {
  const landslides = (['app', 'db'] as const).flatMap((role): Condition[] => {
    const holders = saying(view, `landslide-${role}`);
    if (holders.length === 0) return [];
    return [
      {
        key: `landslide ${role}`,
        kind: 'guard-holding',
        subject: role,
        what:
          `more than half of role ${role} vanished at once, so no member is removed from a configuration ` +
          `(held by ${holders.join(', ')})`,
        next: 'check the private network; if you know that they are gone: bornemisza guards release',
        announced: false,
      },
    ];
  });
  const standing = saying(view, 'last-standing').map(
    (name): Condition => ({
      key: `last-standing ${name}`,
      kind: 'guard-holding',
      subject: name,
      what: `${name} is down and keeps the floating IP, since no other app node is up`,
      next: `see the failing check: bornemisza status on ${name}`,
      announced: false,
    }),
  );
  return [...landslides, ...standing];
}

/** The tag with a node's observation of BIRD, and its possible codes. */
const FLOATING_TAG = 'floating';
const ANNOUNCEMENTS: Readonly<Record<string, string>> = {
  'bird-no-session': 'announces no floating IP: its bird.conf has no BGP session',
  'bird-session-down': 'has a session with the provider that is not up',
  'bird-route-not-exported': 'exports the floating IP to no neighbour: check table and export filter of BGP',
  'bird-route-by-another': 'should have withdrawn the floating IP, and its own bird.conf still announces it',
};

function announcements(view: MembershipView): Condition[] {
  return heard(view).flatMap(({ record: { name, tags } }): Condition[] => {
    const code = tags[FLOATING_TAG] ?? '';
    const what = ANNOUNCEMENTS[code];
    if (what === undefined) return [];
    return [
      {
        key: `announcement ${name} ${code}`,
        kind: 'announcement-failing',
        subject: name,
        what: `${name} ${what}`,
        next: `see the state of its BIRD: sudo bornemisza doctor on ${name}`,
        announced: false,
      },
    ];
  });
}

/** The tag with an app node's server at the provider, and the problem of the floating IPs there. */
const SERVER_TAG = 'server';
const ASSIGNMENTS: Readonly<Record<string, string>> = {
  'floating-token': 'cannot have the floating IP moved: the provider refuses its token',
  'floating-scope': 'cannot have the floating IP moved: its token lacks a right',
  'floating-address': 'cannot have the floating IP moved: the provider does not know it with this token',
  'floating-region': 'cannot have the floating IP moved: it is in another region',
  'floating-refused': 'cannot have the floating IP moved: the provider refuses',
  'floating-foreign': 'does not take the floating IP: it is assigned to a server that is no member',
  'floating-serves': 'does not take the floating IP: its holder is not reachable, but the address answers',
  'floating-api-down': 'cannot have the floating IP moved: the provider does not answer',
  'floating-unmoved': 'finds that the floating IP does not answer, although it is assigned to a healthy node',
};

function assignments(view: MembershipView): Condition[] {
  return heard(view).flatMap(({ record: { name, tags } }): Condition[] => {
    const code = (tags[SERVER_TAG] ?? '').split(' ').at(-1) ?? '';
    const what = ASSIGNMENTS[code];
    if (what === undefined) return [];
    return [
      {
        key: `assignment ${name} ${code}`,
        kind: 'floating-failing',
        subject: name,
        what: `${name} ${what}`,
        next: `see the cause: bornemisza floating show on ${name}`,
        announced: false,
      },
    ];
  });
}

/** Nobody updates the records meanwhile: they still point to a node that dies. */
function records(view: MembershipView): Condition[] {
  return saying(view, DNS_FAILS).map((name) => ({
    key: `dns ${name}`,
    kind: 'dns-failing',
    subject: name,
    what: `${name} could not update the DNS records for ten minutes; they are unchanged`,
    next: `see why: bornemisza status on ${name}`,
    announced: false,
  }));
}

/** The tag in which the ordering node reports that all orders of the site's certificate failed for a day. */
export const CERTIFICATE_TAG = 'certificate';
const CERTIFICATE_FAILING = 'failing';

/** The former certificate stays in use. One condition, whichever node orders. */
function orders(view: MembershipView): Condition[] {
  const [first] = heard(view).filter(({ record }) => record.tags[CERTIFICATE_TAG] === CERTIFICATE_FAILING);
  if (first === undefined) return [];
  return [
    {
      key: 'site-certificate orders',
      kind: 'certificate-failing',
      subject: 'site',
      what: `the orders of the site's certificate have failed for a day (${first.record.name} orders)`,
      next: `see why: bornemisza certificate show on ${first.record.name}`,
      announced: false,
    },
  ];
}

/** The tag of a node without free disk space. */
export const DISK_TAG = 'disk';
const DISK_FULL = 'full';

function disks(view: MembershipView): Condition[] {
  const full = heard(view).filter(({ record: { tags } }) => tags[DISK_TAG] === DISK_FULL);
  return full.map(({ record: { name, role } }) => ({
    key: `disk ${name}`,
    kind: 'disk-full',
    subject: name,
    what:
      `a disk of ${name} is full: ` +
      (role === 'db' ? 'CouchDB will soon refuse writes' : 'its programs keep their present configuration'),
    next: `see which directory: bornemisza status on ${name}`,
    announced: false,
  }));
}

/** The tag of a node whose machine has a fault; words of later versions are ignored. */
export const MACHINE_TAG = 'machine';

const MACHINE_FAULTS: ReadonlyMap<string, readonly [ConditionKind, what: (name: string) => string]> = new Map(
  [
    [
      'private-link',
      ['link-down', (name) => `the private device of ${name} has no link: other nodes do not reach it`],
    ],
    [
      'public-link',
      ['link-down', (name) => `the public device of ${name} has no link: visitors do not reach it`],
    ],
    [
      'memory',
      ['memory-pressure', (name) => `the machine of ${name} has too little memory: its work waits for it`],
    ],
    [
      'restarts',
      ['unit-restarts', (name) => `a unit of ${name} ends again and again, and systemd restarts it`],
    ],
  ],
);

function machines(view: MembershipView): Condition[] {
  return heard(view).flatMap(({ record: { name, tags } }) =>
    (tags[MACHINE_TAG] ?? '').split(' ').flatMap((word): Condition[] => {
      const [kind, what] = MACHINE_FAULTS.get(word) ?? [];
      if (kind === undefined || what === undefined) return [];
      const next = `see what to do: bornemisza status on ${name}`;
      return [{ key: `${word} ${name}`, kind, subject: name, what: what(name), next, announced: false }];
    }),
  );
}

function certificates({ view, certificates: ends, wallMs }: ConditionInput): Condition[] {
  const nodes = heard(view).flatMap(({ record: { name } }): Condition[] => {
    const endMs = ends.get(name);
    if (endMs === undefined || endMs - wallMs >= CERTIFICATE_ENDING_MS) return [];
    return [
      {
        key: `certificate ${name} ${endMs}`,
        kind: 'certificate-ending',
        subject: name,
        what: `the certificate of ${name} ends on ${dayOf(endMs)}, and its renewal has failed so far`,
        next: 'start an authority that it can reach; see which nodes are: bornemisza authority list',
        announced: false,
      },
    ];
  });
  const words = heard(view).flatMap(({ record }) => (record.tags[NOTICE_TAG] ?? '').split(' '));
  const days = new Set(words.filter((word) => /^site-\d{4}-\d\d-\d\d$/.test(word)));
  const sites = [...days].map((word): Condition => {
    const day = word.slice('site-'.length);
    return {
      key: `site-certificate ${day}`,
      kind: 'certificate-ending',
      subject: 'site',
      what: `the certificate of the site on ${saying(view, word).join(', ')} ends on ${day}`,
      next:
        'with [certificates]: bornemisza status on an app node says why it is not renewed; else put a new one into ' +
        'the file of edge.certificate on each app node, then: systemctl reload bornemisza@app',
      announced: false,
    };
  });
  return [...nodes, ...sites];
}

/** The agreed rollout, and the host that was upgrading: its record shows that although it may be dead now. */
function rollouts({ view, wallMs }: ConditionInput): Condition[] {
  const said = view.members.flatMap(({ record: { name, tags } }) => {
    const word = parseWord(tags[ROLLOUT_TAG]);
    return word === undefined ? [] : [{ name, word }];
  });
  const rollout = said
    .map(({ word: { id, state, code } }) => ({ id, state, code }))
    .filter(({ id }) => isPossible(id, wallMs / 1000))
    .reduce<Rollout | undefined>(merged, undefined);
  if (rollout?.state !== 'stopped' || rollout.code === undefined) return [];
  const steps = said.filter(({ word }) => word.id === rollout.id);
  const atWork =
    steps.find(({ word }) => word.step === 'failed') ?? steps.find(({ word }) => word.step === 'working');
  const { why, next } = stopInWords(rollout.code, atWork === undefined ? undefined : hostOf(atWork.name));
  return [
    {
      key: `rollout ${rollout.id}`,
      kind: 'rollout-stopped',
      subject: atWork?.name ?? 'rollout',
      what: `the rollout of a new version has stopped: ${why}`,
      next,
      announced: false,
    },
  ];
}

/** How a condition ended, in one sentence. */
export function endOf(
  { kind, subject, what }: Pick<Condition, 'kind' | 'subject' | 'what'>,
  view: MembershipView,
): string {
  switch (kind) {
    case 'node-dead': {
      if (heard(view).some(({ record }) => record.name === subject)) return `${subject} is back`;
      const member = view.members.find(({ record }) => record.name === subject);
      if (member === undefined) return `${subject} is no longer a member`;
      if (member.state === 'leaving' || member.state === 'left') return `${subject} has left the cluster`;
      return `${subject} was back for a while`;
    }
    case 'guard-holding':
      return `no longer held: ${what}`;
    case 'announcement-failing':
      return `the announcement of ${subject} works again, or its node is gone`;
    case 'floating-failing':
      return `${subject} can have the floating IP moved again, or its node is gone`;
    case 'certificate-ending':
      return `the certificate of ${subject === 'site' ? 'the site' : subject} was renewed, or its node is gone`;
    case 'certificate-failing':
      return 'a certificate of the site was issued, or is no longer wanted';
    case 'dns-failing':
      return `${subject} updates the DNS records again, or no longer has a key for them`;
    case 'disk-full':
      return `the disks of ${subject} have room again, or its node is gone`;
    case 'link-down':
      return `the devices of ${subject} have their links again, or its node is gone`;
    case 'memory-pressure':
      return `the machine of ${subject} has enough memory again, or its node is gone`;
    case 'unit-restarts':
      return `the units of ${subject} keep running again, or its node is gone`;
    case 'rollout-stopped':
      return 'the rollout is no longer stopped';
  }
}

function dayOf(wallMs: number): string {
  return new Date(wallMs).toISOString().slice(0, 10);
}
