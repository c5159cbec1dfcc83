import t from 'tap';
import { steadyLoad } from '../../../src/roles/load.ts';
import { changedByTime, look, type Scene, situationOf } from '../../../src/daemon/node/look.ts';
import { limits } from '../../../src/daemon/membership/limits.ts';
import { EMPTY_GUARD_STATE } from '../../../src/roles/guards.ts';
import { NO_RETURNS } from '../../../src/roles/returns.ts';
import { believed, BGP, CERTIFICATES, configOf, EMPTY_MEMORY, scene } from './scenes.ts';

const DAY_MS = 86_400_000;
const app = believed('app1/app');
const other = believed('app2/app');
const down = { ...other, record: { ...other.record, health: 'down' as const } };
const silentEdge = { services: [{ name: 'haproxy', health: 'down' as const }] };
const noEdge = { ...silentEdge, answerWrongly: ['haproxy'] };
const bothSilent = { ...down, record: { ...down.record, ...silentEdge } };

t.test('the floating IPs are decided once, from what the node knows in this moment', async (t) => {
  const cases: [string, Scene, boolean | undefined][] = [
    ['up', scene(), true],
    ['its HAProxy refuses', scene([app], noEdge), false],
    ['its HAProxy was not asked yet', scene([app], { services: [] }), false],
    ['its HAProxy is silent, and another may answer', scene([app, down], silentEdge), false],
    ['the HAProxy of both is silent', scene([app, bothSilent], silentEdge), true],
    ['maintenance', scene([app, other], { maintenance: true }), false],
    ['down, and another may be up', scene([app, other], { health: 'down' }), false],
    ['down, and so says the only other one', scene([app, down], { health: 'down' }), true],
    ['leaving', scene([app], { phase: 'leaving' }), false],
    ['has left', scene([app], { phase: 'left' }), false],
    ['stopping', scene([app], { phase: 'stopping' }), false],
    ['it starts, and its HAProxy answers', scene([app], { phase: 'starting' }), true],
    ['no floating IPs', scene([app], { config: configOf('app') }), undefined],
    ['role db', scene([app], { config: configOf('db') }), undefined],
  ];
  for (const [what, given, announce] of cases)
    t.equal(look(given, EMPTY_MEMORY).floating?.announce, announce, what);
});

t.test('the same scene and memory give the same decision, and neither is changed', async (t) => {
  const given = Object.freeze(scene([app, other], { health: 'down', load: 3 }));
  const memory = Object.freeze({ guards: Object.freeze(EMPTY_GUARD_STATE), returns: NO_RETURNS, load: 0 });
  const before = structuredClone({ given, memory });
  t.strictSame(look(given, memory), look(given, memory));
  t.strictSame({ given, memory }, before);
});

t.test('a record has the present health, services, maintenance, settings and load', async (t) => {
  const services = [
    { name: 'haproxy', health: 'up' },
    { name: 'database', health: 'down' },
  ] as const;
  const given = scene([app], { health: 'down', maintenance: true, services, load: 1.5 });
  t.match(look(given, EMPTY_MEMORY).facts, {
    ...{ health: 'down', maintenance: true, services },
    ...{ settingsDigest: 'a-digest', load: 150 },
  });
});

t.test('a record takes all tags that it can hold, and leaves out marks of what was sent', async (t) => {
  const told = ['told', ...[2, 3, 4, 5, 6, 7, 8].map((count) => `told${count}`)];
  const others = Array.from({ length: 11 }, (_, index) => `fact${index}`);
  const tagsFor = (names: readonly string[]): string[] =>
    Object.keys(
      look(scene([app], { tags: Object.fromEntries(names.map((name) => [name, 'x'])) }), EMPTY_MEMORY).facts
        .tags,
    );
  const all = tagsFor([...told, ...others]);
  t.equal(all.length, limits.tags);
  t.same(all.toSorted(), [...told.slice(0, 5), ...others].toSorted());
  t.equal(tagsFor([...told, ...others.slice(0, 8)]).length, limits.tags, 'sixteen have room');
});

t.test('a tag exists only while it has a value', async (t) => {
  const tags = (changes: Partial<Scene>, members = [app]) =>
    look(scene(members, changes), EMPTY_MEMORY).facts.tags;
  t.strictSame(tags({}), {});
  t.strictSame(tags({ tags: { root: undefined, notify: 'ok', couchdb: '' } }), { notify: 'ok' });
  t.strictSame(tags({ holds: true }), { floating: 'held' });
  t.strictSame(tags({ tags: { floating: 'bird-session-down' } }), { floating: 'bird-session-down' });
  const config = configOf('app', 'public_addresses = ["192.0.2.1", "2001:db8::1"]\n');
  t.strictSame(tags({ config }), { public: '192.0.2.1 2001:db8::1' });
  t.strictSame(tags({ dns: { works: true, failsForMs: 0 } }), { dns: 'ready' });
  t.strictSame(tags({ dns: { works: false, failsForMs: 599_999 } }), {});
  t.strictSame(tags({ dns: { works: false, failsForMs: 600_000 } }), { notice: 'dns' });
  t.strictSame(tags({ health: 'down' }), { notice: 'last-standing' }, 'what it alone can see');
  t.strictSame(tags({ health: 'down', phase: 'leaving' }), {}, 'nor when it goes');
  t.strictSame(tags({ health: 'down', phase: 'starting' }), {}, 'nor before it runs');
  t.strictSame(tags({ health: 'down', config: configOf('app') }), {}, 'where there is nothing to announce');
  const near = (days: number) => {
    const { wallMs } = scene();
    return tags({ certificates: { ...CERTIFICATES, siteEndMs: wallMs + days * DAY_MS } })['notice'];
  };
  t.equal(near(15), undefined);
  t.match(near(13), /^site-2026-06-14$/);
  t.match(near(-1), /^site-2026-05-31$/, 'one that ended is worse');
});

t.test('one decision holds, remembers and reports a landslide', async (t) => {
  const names = ['app1/app', 'app2/app', 'app3/app', 'app4/app'];
  const all = names.map((name) => believed(name));
  const calm = look(scene(all), EMPTY_MEMORY);
  t.strictSame(calm.view.held, []);
  const gone = all.map((each) => (each.self ? each : { ...each, state: 'dead' as const }));
  const held = look(scene(gone), calm.memory);
  t.match(held.view.held, [{ code: 'landslide', subjects: ['app2/app', 'app3/app', 'app4/app'] }]);
  t.strictSame(
    held.view.members.map(({ rotation }) => rotation),
    ['in', 'in', 'in', 'in'],
  );
  t.match(held.memory.guards.landslides, [{ role: 'app' }]);
  t.match(held.facts.tags['notice'], /landslide/);
});

t.test('time alone is a reason where it changed who gets traffic', async (t) => {
  const calm = look(scene([app, other]), EMPTY_MEMORY);
  t.equal(changedByTime(calm, look(scene([app, other], { load: 9 }), calm.memory)).text, '');
  const cut = look(scene([app, { ...other, state: 'dead' }]), calm.memory);
  const guard = { text: 'a guard began or ended to hold', subjects: [other.record.name] };
  t.strictSame(changedByTime(calm, cut), guard);
  const logs = look(scene([app, other], { requestsLogged: true }), EMPTY_MEMORY);
  t.equal(changedByTime(logs, calm).text, 'the time of the request log is over');
  const silent = look(scene([app, other], noEdge), calm.memory);
  t.equal(changedByTime(calm, silent).text, 'floating IPs: the check of HAProxy is down here');
});

t.test('who goes for longer than a restart has no duty, whatever its health', async (t) => {
  t.strictSame(situationOf(scene([app], { health: 'down', maintenance: true })), {
    ...{ health: 'down', edge: 'answers', maintenance: true, leaving: false, holds: false, upMs: 60_000 },
  });
  for (const phase of ['leaving', 'left', 'stopping'] as const)
    t.equal(situationOf(scene([app], { phase })).leaving, true, phase);
  for (const phase of ['starting', 'running'] as const)
    t.equal(situationOf(scene([app], { phase })).leaving, false, phase);
});

t.test('the load is published again only when it changed by one', async (t) => {
  t.equal(steadyLoad(0, 0.99), 0);
  t.equal(steadyLoad(0, 1), 100);
  t.equal(steadyLoad(100, 1.5), 100);
  t.equal(steadyLoad(250, 1.5), 150);
  const { memory } = look(scene([app], { load: 1 }), EMPTY_MEMORY);
  t.equal(look(scene([app], { load: 1.9 }), memory).facts.load, 100);
});

t.test('layer 2 asks for a majority, BGP does not', async (t) => {
  const members = [app, { ...other, state: 'dead' as const }];
  const device = 'public_device = "eth0"\n';
  const config = configOf('app', device + BGP.replace('bgp', 'layer2'));
  t.equal(look(scene(members, { config }), EMPTY_MEMORY).floating?.announce, false);
  t.equal(look(scene(members), EMPTY_MEMORY).floating?.announce, true);
});
