import { createHook } from 'node:async_hooks';
import { readFile } from 'node:fs/promises';
import { mock } from 'node:test';
import t from 'tap';
import { BirdPlugin } from '../../../src/plugins/bird/plugin.ts';
import type { AnyPlugin } from '../../../src/plugins/contract.ts';
import type { ApiDesired } from '../../../src/plugins/floating/desired.ts';
import { CouchDbPlugin } from '../../../src/plugins/couchdb/plugin.ts';
import { DnsPlugin } from '../../../src/plugins/dns/plugin.ts';
import { FloatingPlugin } from '../../../src/plugins/floating/plugin.ts';
import { FirewallPlugin } from '../../../src/plugins/firewall/plugin.ts';
import { HaproxyPlugin } from '../../../src/plugins/haproxy/plugin.ts';
import { render } from '../../../src/plugins/haproxy/render.ts';
import { Layer2Plugin } from '../../../src/plugins/layer2/plugin.ts';
import {
  desired as couchDesired,
  directory,
  member,
  observed as couchObserved,
} from '../plugins-couchdb/scene.ts';
import { app, db, layout, noSite, peer, runningAs } from './haproxy-cases.ts';

/** `plan` and `status` of every plugin are pure: same input, same answer, nothing written to, nobody asked. */

/** Freezes all the way down. A Map and a Set refuse their own methods that write. */
function frozen<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value;
  const inside: unknown[] =
    value instanceof Map ? [...value].flat() : value instanceof Set ? [...value] : Object.values(value);
  if (value instanceof Map || value instanceof Set)
    for (const method of ['set', 'add', 'delete', 'clear'])
      Object.defineProperty(value, method, {
        value: () => {
          throw new TypeError(`${method} on frozen input`);
        },
      });
  for (const each of inside) frozen(each);
  return Object.freeze(value);
}

/** What a function asked of the world: any socket, file, process, timer or promise is an async resource. */
function callsOf(work: () => unknown): string[] {
  const calls: string[] = [];
  const clocks = [
    mock.method(Date, 'now', () => calls.push('Date.now')),
    mock.method(performance, 'now', () => calls.push('performance.now')),
    mock.method(Math, 'random', () => calls.push('Math.random')),
  ];
  const hook = createHook({ init: (_, type) => void calls.push(type) }).enable();
  try {
    work();
  } finally {
    hook.disable();
    for (const clock of clocks) clock.mock.restore();
  }
  return calls;
}

interface Case {
  readonly plugin: AnyPlugin;
  readonly desired: unknown;
  readonly observed: unknown;
}

function cases(): Case[] {
  const nothing = { files: new Map(), refused: new Set(), site: noSite, ipv6: true };
  const haproxy = (instance: 'app' | 'db') =>
    new HaproxyPlugin({ instance, directory: layout.directory, runDirectory: '/run/x/app' });
  const appWanted = app({ databases: { ...app().databases, servers: [peer('db1'), peer('db4', 'maint')] } });
  const bird = new BirdPlugin({ fragmentDirectory: '/nowhere', controlSocket: '/nowhere/bird.ctl' });
  const birdDesired = {
    device: 'bm-float',
    addresses: ['192.0.2.7'],
    mode: 'ranked',
    rank: 1,
    announce: false,
    why: 'x',
  };
  const birdObserved = {
    devices: new Map([['bm-float', { up: true, kind: 'dummy', addresses: ['192.0.2.9/32'] }]]),
    fragment: undefined,
    localAs: 64512,
    running: {
      loaded: 'a',
      announcing: true,
      sessions: [{ name: 'provider', state: 'Established', up: true, routes: [] }],
    },
    fault: { code: 'bird-route-not-exported', forMs: 20_000 },
  };
  const layer2 = { device: 'eth0', addresses: ['203.0.113.10'], hold: true, rivals: [], why: 'first' };
  const held = { device: 'eth0', address: '203.0.113.12/32', ours: true };
  const couchdb = new CouchDbPlugin({
    credentials: () => ({ name: '', password: '' }),
    configDirectory: directory,
  });
  const three = [member(1), member(2), member(3)];
  const facts = { self: 1, members: three, maintenance: [1] };
  return [
    {
      plugin: haproxy('app'),
      desired: appWanted,
      observed: { ...nothing, running: runningAs(render(app(), layout)) },
    },
    { plugin: haproxy('app'), desired: appWanted, observed: { ...nothing, running: undefined } },
    {
      plugin: haproxy('db'),
      desired: db({ databases: undefined }),
      observed: { ...nothing, running: runningAs(render(db(), layout)) },
    },
    { plugin: bird, desired: birdDesired, observed: birdObserved },
    dnsCase(),
    floatingCase(),
    {
      plugin: new FirewallPlugin({ list: '/nowhere', base: '/nowhere', state: '/nowhere' }),
      desired: { apps: ['10.0.0.11'], dbs: [], keep: false, why: 'x' },
      observed: { list: undefined, on: true, helper: undefined },
    },
    {
      plugin: bird,
      desired: { retired: true, why: 'off' },
      observed: { ...birdObserved, fragment: '# ours' },
    },
    { plugin: new Layer2Plugin(), desired: layer2, observed: { addresses: [held], told: undefined } },
    {
      plugin: new Layer2Plugin(),
      desired: { ...layer2, hold: false },
      observed: { addresses: [held], told: 'x' },
    },
    {
      plugin: couchdb,
      desired: couchDesired(1, three),
      observed: couchObserved(facts, couchDesired(1, three)),
    },
    {
      plugin: couchdb,
      desired: couchDesired(1, three, { mayRestart: false }),
      observed: { ...couchObserved(facts, couchDesired(1, three)), files: new Map() },
    },
  ];
}

function floatingCase(): Case {
  const nobody = async (): Promise<never> => Promise.reject(new Error('asked'));
  const provider = { label: 'x', callsFor: () => 1, self: nobody, look: nobody, assign: nobody };
  return {
    plugin: new FloatingPlugin({ provider, desired: () => nothing, ask: nobody, nowMs: () => 0 }),
    desired: { ...nothing, addresses: ['203.0.113.7'], take: true },
    observed: {
      ...{
        label: 'x',
        self: '2',
        fresh: true,
        fault: undefined,
        failingForMs: 0,
        held: [],
        asked: new Map(),
      },
      ...{ pending: new Set(), again: new Set(), ids: new Map() },
      assigned: new Map([['203.0.113.7', { to: undefined, busy: false }]]),
    },
  };
}

const nothing: ApiDesired = {
  ...{ addresses: [], device: '', take: false, barred: undefined, ask: undefined, others: [], silentTo: [] },
  why: 'x',
};

function dnsCase(): Case {
  const nobody = async (): Promise<never> => Promise.reject(new Error('asked'));
  const set = { name: 'shop.example', type: 'A', values: ['192.0.2.1'], ttlS: 60, guard: 'serves' };
  return {
    plugin: new DnsPlugin({
      provider: { list: nobody, changeAll: nobody, mark: nobody },
      desired: () => undefined,
      ask: nobody,
      nowMs: () => 0,
    }),
    desired: {
      ...{ zone: 'shop.example', owner: 'shop', writer: true, why: 'x', sets: [set], doubtful: [] },
      challenges: [{ name: '_acme-challenge.shop.example', value: 'x' }],
    },
    observed: { zone: [], silent: new Set() },
  };
}

t.test('plan and status of every plugin: twice on frozen input, one answer, no call', async (t) => {
  for (const { plugin, desired, observed } of cases()) {
    const input = [frozen(desired), frozen(observed)] as const;
    const answers: unknown[] = [];
    const ask = (): void =>
      void answers.push({ plan: plugin.plan(...input), status: plugin.status?.(...input) });
    t.same(callsOf(ask), [], `${plugin.name}: nobody is asked`);
    t.same(callsOf(ask), [], `${plugin.name}: nor the second time`);
    t.strictSame(answers[0], answers[1], `${plugin.name}: the same answer`);
    t.ok((answers[0] as { plan: unknown[] }).plan.length > 0, `${plugin.name}: there was something to plan`);
    await plugin.close();
  }
});

t.test('what is not pure is found out', async (t) => {
  t.throws(() =>
    frozen(new Map([['a', [1]]]))
      .get('a')
      ?.push(2),
  );
  t.throws(() => frozen(new Map([['a', 1]])).delete('a'), /frozen/);
  t.match(
    callsOf(() => performance.now()),
    ['performance.now'],
  );
  t.match(callsOf(() => void readFile('/dev/null').catch(() => {})).length > 0, true);
  t.match(
    callsOf(() => clearTimeout(setTimeout(() => {}, 1))),
    ['Timeout'],
  );
});
