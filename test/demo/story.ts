import { until } from '../support/until.ts';
import type { Picture, World } from './world.ts';

/** One thing that must become true, and in whose words. */
interface Expectation {
  readonly where: 'members' | 'haproxy' | 'routes' | 'couchdb' | 'site' | 'dns' | 'tls' | 'user' | 'ports';
  /** Undefined: true. Else what is still missing, for people. */
  readonly missing: (picture: Picture) => string | undefined;
}

export interface StepResult {
  readonly title: string;
  readonly ok: boolean;
  /** Seconds from the act to the first look that showed it. */
  readonly seen: Partial<Record<Expectation['where'], number>>;
  readonly failure: string | undefined;
}

interface Step {
  readonly title: string;
  /** Only where this is there. */
  readonly needs?: 'around';
  readonly act: (world: World, say: (text: string) => void) => Promise<void>;
  readonly expect: (world: World) => readonly Expectation[];
  readonly deadlineMs: number;
}

/** A node that joins gets copies, one that was away is proved complete; two cores carry nine machines here. */
const LONG_MS = 150_000;
/** A look asks fifteen programs; more often it would take from two cores what the cluster is to be seen doing. */
const LOOK_EVERY_MS = 500;
const NEW_DB = 'db4';
const REMOVED = 'app3';

/** The steps that a world can show. */
export function storyOf({ around }: Pick<World, 'around'>): readonly Step[] {
  return STORY.filter(({ needs }) => needs === undefined || around !== undefined);
}

/** The whole life of a small cluster. Each step is judged by the programs themselves, not by the daemon’s word. */
const STORY: readonly Step[] = [
  {
    title: 'three app and three db nodes serve',
    act: async () => undefined,
    expect: (world) => serving(world, world.hosts('app'), world.hosts('db')),
    deadlineMs: LONG_MS,
  },
  {
    title: 'the site has a certificate from a CA',
    needs: 'around',
    act: async (_world, say) =>
      say(
        'one node orders it, the CA asks any edge, and every edge shows it; the name server has the records',
      ),
    expect: (world) => world.hosts('app').map((edge) => certificate(world, edge)),
    deadlineMs: LONG_MS,
  },
  {
    title: 'every machine closes its ports',
    needs: 'around',
    act: async (world) => world.around?.closePorts(),
    expect: (world) => [
      ...world.hosts('app').map((host) => closed(world, host)),
      ...serving(world, world.hosts('app'), world.hosts('db')),
    ],
    deadlineMs: LONG_MS,
  },
  {
    title: `${NEW_DB} joins with a token`,
    act: (world, say) => {
      say(`bornemisza join on ${NEW_DB}: every app node must send it traffic, CouchDB must count it`);
      return world.join(NEW_DB, 'db');
    },
    expect: (world) => serving(world, world.hosts('app'), world.hosts('db')),
    deadlineMs: LONG_MS,
  },
  {
    title: 'a person registers at app2',
    needs: 'around',
    act: async (world, say) => {
      say('by the link in the mail; then the person writes a note');
      await world.around?.register('app2');
    },
    expect: (world) => world.hosts('app').map((host) => signedIn(world, host)),
    deadlineMs: 60_000,
  },
  {
    title: 'app2 is killed',
    act: (world, say) => {
      say('the power of app2 fails: the router must drop it, the other edges too');
      return world.kill('app2');
    },
    expect: (world) => [
      members('app2/app', 'dead'),
      server(['app1', 'app3'], `svc_${world.service}/app2`, 'gone'),
      announcers(world.hosts('app').filter((host) => host !== 'app2')),
      couch(world.hosts('db'), world.hosts('db')),
      site(world),
      // The floating IP is the site's record, and by its SRV record a dead node is found when it is back.
      ...(world.around === undefined
        ? []
        : [records(world), ...['app1', 'app3'].map((host) => signedIn(world, host))]),
    ],
    deadlineMs: 60_000,
  },
  {
    title: 'app2 comes back',
    act: (world) => world.revive('app2'),
    expect: (world) => serving(world, world.hosts('app'), world.hosts('db')),
    deadlineMs: LONG_MS,
  },
  {
    title: 'db2 is cut off from the private network',
    act: (world, say) => {
      say('nothing reaches db2: the others take it for dead, it gets no requests, and it loses no data');
      return world.cut('db2');
    },
    expect: (world) => {
      const others = world.hosts('db').filter((host) => host !== 'db2');
      return [
        members('db2/db', 'dead'),
        server(world.hosts('app'), 'db_nodes/db2', 'gone'),
        announcers(world.hosts('app')),
        couch(others, world.hosts('db'), others),
        site(world),
      ];
    },
    deadlineMs: 90_000,
  },
  {
    title: 'the link of db2 is mended',
    act: (world) => world.heal('db2'),
    expect: (world) => serving(world, world.hosts('app'), world.hosts('db')),
    deadlineMs: LONG_MS,
  },
  {
    title: `${NEW_DB} leaves for good`,
    act: (world, say) => world.leave(NEW_DB, say),
    expect: (world) => {
      const staying = world.hosts('db').filter((host) => host !== NEW_DB);
      return [
        members(`${NEW_DB}/db`, 'left'),
        server(world.hosts('app'), `db_nodes/${NEW_DB}`, 'gone'),
        announcers(world.hosts('app')),
        couch(staying, staying),
        site(world),
      ];
    },
    deadlineMs: LONG_MS,
  },
  {
    title: `${REMOVED} is removed`,
    needs: 'around',
    act: async (world, say) => {
      say(`${REMOVED} is still connected to another node when it is removed: that connection ends too`);
      await world.around?.removeTalking(REMOVED);
    },
    expect: (world) => {
      const staying = world.hosts('app').filter((host) => host !== REMOVED);
      return [
        absent(`${REMOVED}/app`),
        server(staying, `svc_${world.service}/${REMOVED}`, 'gone'),
        announcers(staying),
        silent(world),
        records(world),
        site(world),
      ];
    },
    deadlineMs: LONG_MS,
  },
  {
    title: 'all machines reboot at once',
    act: (world, say) => {
      say('no process remembers the cluster: each node starts from its snapshot and its certificate');
      return world.rebootAll();
    },
    expect: (world) => serving(world, world.hosts('app'), world.hosts('db')),
    deadlineMs: LONG_MS,
  },
];

/** Of a step that still moves when its time is over. What moves for longer than this goes round in circles. */
const MOST_STRETCHES = 3;

/**
 * Acts, then looks until everything expected was seen. The deadline ends a step in which nothing has moved since the
 * last one: on a busy machine everything is late, and a step is not over while what it shows is still coming.
 */
export async function tell(step: Step, world: World, say: (text: string) => void): Promise<StepResult> {
  const seen: Partial<Record<Expectation['where'], number>> = {};
  const startMs = performance.now();
  const watched: { expectation: Expectation; seconds?: number }[] = [];
  let acting = true;
  let actFailure: string | undefined;
  let [left, moved] = ['', false];
  const act = step
    .act(world, say)
    .catch((error: unknown) => (actFailure = error instanceof Error ? error.message : String(error)))
    .finally(() => (acting = false));
  const shown = (): Promise<boolean> =>
    until(
      async () => {
        // What a step expects can depend on what it makes (a host that joins), so it is asked again after the act.
        if (acting) return false;
        if (actFailure !== undefined) return true;
        if (watched.length === 0) {
          const judged = step.expect(world).filter(({ where }) => world.routed || where !== 'routes');
          watched.push(...judged.map((expectation) => ({ expectation })));
        }
        const picture = await world.look();
        const missing = watched.flatMap((each) => {
          const what = each.expectation.missing(picture);
          if (what === undefined) each.seconds ??= (performance.now() - startMs) / 1000;
          else delete each.seconds;
          return what ?? [];
        });
        if (left !== missing.join('; ')) [left, moved] = [missing.join('; '), true];
        if (missing.length > 0) throw new Error(left);
        return true;
      },
      { deadlineMs: step.deadlineMs, everyMs: LOOK_EVERY_MS, what: step.title },
    );
  try {
    for (let stretch = 1; ; stretch += 1) {
      moved = false;
      try {
        await shown();
        break;
      } catch (error) {
        if (!moved || stretch === MOST_STRETCHES) throw error;
      }
    }
    await act;
  } catch (error) {
    return {
      title: step.title,
      ok: false,
      seen,
      failure: error instanceof Error ? firstLine(error.message) : String(error),
    };
  }
  for (const { expectation, seconds } of watched) {
    if (seconds !== undefined) seen[expectation.where] = Math.max(seen[expectation.where] ?? 0, seconds);
  }
  return { title: step.title, ok: actFailure === undefined, seen, failure: actFailure };
}

function firstLine(message: string): string {
  return message.split('\n')[0] ?? message;
}

/** Everybody serves: alive and in rotation, up in every edge’s HAProxy, announced, and one CouchDB cluster. */
function serving(world: World, apps: readonly string[], dbs: readonly string[]): Expectation[] {
  return [
    ...apps.map((host) => members(`${host}/app`, 'alive')),
    ...dbs.map((host) => members(`${host}/db`, 'alive')),
    ...dbs.map((host) => server(apps, `db_nodes/${host}`, 'up')),
    ...apps.map((host) => server(apps, `svc_${world.service}/${host}`, 'up')),
    announcers(apps),
    couch(dbs, dbs),
    site(world),
    ...(world.around === undefined ? [] : [records(world)]),
  ];
}

function members(name: string, state: string): Expectation {
  return {
    where: 'members',
    missing: (picture) => {
      const row = picture.members.find((each) => each.name === name);
      return row?.state === state
        ? undefined
        : `${picture.askedName} holds ${name} for ${row?.state ?? 'unknown'}, not ${state}`;
    },
  };
}

function absent(name: string): Expectation {
  return {
    where: 'members',
    missing: ({ askedName, members: rows }) =>
      rows.some((each) => each.name === name) ? `${askedName} still lists ${name}` : undefined,
  };
}

function server(edges: readonly string[], name: string, wanted: 'up' | 'gone'): Expectation {
  return {
    where: 'haproxy',
    missing: (picture) => {
      const wrong = edges.flatMap((edge) => {
        const found = picture.servers.get(`${edge}/app`)?.find((each) => each.server === name);
        const up = found?.status.startsWith('UP') === true;
        const right = wanted === 'up' ? up : picture.servers.has(`${edge}/app`) && !up;
        return right ? [] : [`${edge}: ${name} is ${found?.status ?? 'unknown'}`];
      });
      return wrong.length === 0 ? undefined : wrong.join(', ');
    },
  };
}

function announcers(hosts: readonly string[]): Expectation {
  return {
    where: 'routes',
    missing: ({ announcers: now }) => {
      if (now === undefined) return 'the router does not answer';
      const right = [...now].sort().join() === [...hosts].sort().join();
      return right ? undefined : `the router sends to ${now.join(', ') || 'nobody'}, not ${hosts.join(', ')}`;
    },
  };
}

/** Each db node in `asked` must list exactly `members`, and be connected with exactly `connected`. */
function couch(asked: readonly string[], members: readonly string[], connected = members): Expectation {
  return {
    where: 'couchdb',
    missing: (picture) => {
      const wrong = asked.flatMap((host) => {
        const answer = picture.couch.get(host);
        const right =
          answer !== undefined && same(answer.members, members) && same(answer.connected, connected);
        if (right) return [];
        if (answer === undefined) return [`${host}: no answer`];
        return [`${host}: members ${answer.members.join('+')}, connected ${answer.connected.join('+')}`];
      });
      return wrong.length === 0 ? undefined : `_membership of ${wrong.join('; ')}`;
    },
  };
}

function site(world: World): Expectation {
  return asked('site', async () => {
    const text = await world.visit();
    return text.startsWith('200') ? undefined : `the site answers ${text}`;
  });
}

/** The name server names every node that did not leave, and the floating IP for the site. */
function records(world: World): Expectation {
  const { around, site: url } = world;
  const [app, db] = [world.hosts('app'), world.hosts('db')];
  return asked('dns', async () => {
    const found = await around?.records();
    const right =
      found !== undefined && same(found.app, app) && same(found.db, db) && url.includes(`//${found.site}/`);
    return right ? undefined : `the name server has ${JSON.stringify(found)}`;
  });
}

function certificate({ around }: World, edge: string): Expectation {
  return asked('tls', async () => {
    const text = (await around?.visitTrusting(edge)) ?? '';
    return text.startsWith('200') ? undefined : `${edge} with trust in the CA alone: ${text}`;
  });
}

/** Signs in once, as each try counts at the edge, and then reads with that session. */
function signedIn({ around }: World, host: string): Expectation {
  let cookie: string | undefined;
  return asked('user', async () => {
    cookie ??= await around?.signIn(host);
    const text = (await around?.readNote(host, cookie ?? '')) ?? '';
    return text.startsWith('200') ? undefined : `signing in at ${host}: ${text}`;
  });
}

function closed({ around }: World, host: string): Expectation {
  return asked('ports', async () =>
    (await around?.isOpen(host)) === false ? undefined : `${host} lets a stranger in`,
  );
}

function silent({ around }: World): Expectation {
  return asked('ports', async () =>
    (await around?.talks()) === false ? undefined : `${REMOVED} is still connected`,
  );
}

/** A look at a picture does not wait: the answer of the question before counts, one at a time. */
function asked(where: Expectation['where'], ask: () => Promise<string | undefined>): Expectation {
  let missing: string | undefined = 'not asked yet';
  let under = false;
  return {
    where,
    missing: () => {
      if (!under) {
        under = true;
        void ask()
          .catch((error: unknown) => String(error))
          .then((answer) => {
            missing = answer;
            under = false;
          });
      }
      return missing;
    },
  };
}

function same(a: readonly string[], b: readonly string[]): boolean {
  return [...a].sort().join() === [...b].sort().join();
}
