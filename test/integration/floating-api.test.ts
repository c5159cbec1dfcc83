import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { systemClock } from '../../src/daemon/clock.ts';
import type { Member } from '../../src/daemon/membership/types.ts';
import { KeptPrograms, type KeptProgramsDependencies } from '../../src/daemon/node/kept-programs.ts';
import { look } from '../../src/daemon/node/look.ts';
import { PROGRAMS } from '../../src/daemon/node/programs.ts';
import { DEFAULT_RECONCILER_OPTIONS, Reconciler } from '../../src/daemon/reconciler/reconciler.ts';
import type { ApiDesired, ApiProvider, Owner } from '../../src/plugins/floating/desired.ts';
import { FloatingPlugin, type FloatingReport } from '../../src/plugins/floating/plugin.ts';
import { providerOf } from '../../src/plugins/floating/providers.ts';
import type { FloatingShown } from '../../src/plugins/floating/shape.ts';
import { RunFailure, runPlugin } from '../../src/daemon/reconciler/run.ts';
import { selfSigned } from '../support/self-signed.ts';
import { until } from '../support/until.ts';
import { believed as asBelieved, configOf, EMPTY_MEMORY, scene as nodeScene } from '../unit/node/scenes.ts';
import { type Fault, FloatingStandIn, type StandInOptions } from '../standin/floating/api.ts';

/** The providers and the plugin over HTTP, at a stand-in for each provider's API. */
const A = '203.0.113.7';
const TOKEN = 'a-token-of-forty-characters-is-a-secret0';
const signal = new AbortController().signal;
const PROVIDERS = ['digitalocean', 'hetzner', 'upcloud'] as const;
/** What each provider calls a server. */
const idOf = (provider: ApiProvider, number: number): string =>
  provider === 'upcloud' ? `02:00:00:00:00:0${number}` : String(number);

interface SceneOptions extends Partial<StandInOptions> {
  readonly provider?: ApiProvider;
  readonly token?: string;
}

async function scene(t: Test, { provider = 'digitalocean', token = TOKEN, ...more }: SceneOptions = {}) {
  const one = idOf(provider, 1);
  const api = new FloatingStandIn({ token: TOKEN, assigned: { [A]: one }, ...more });
  const baseUrl = await api.listen();
  t.teardown(() => api.close());
  const tokenFile = join(t.testdir(), 'token');
  await writeFile(tokenFile, `${token}\n`);
  const time = { ms: 1_000_000 };
  /** One node, with what it decided; `answers`: whether the address answers visitors. */
  const node = (number: number, changes: Partial<ApiDesired> = {}) => {
    let wanted: ApiDesired = {
      ...{ addresses: [A], device: '', take: true, barred: undefined, ask: 'doubt', silentTo: [] },
      others: [owner('app1/app', one, 'given')],
      why: 'first in line',
      ...changes,
    };
    const settings = { provider, tokenFile, command: [], publicDevice: '', baseUrl };
    const serverId = idOf(provider, number);
    let answers = false;
    const plugin = new FloatingPlugin({
      provider: providerOf({ ...settings, serverId }, () => time.ms),
      desired: () => wanted,
      ask: async () => answers,
      nowMs: () => time.ms,
    });
    t.teardown(() => plugin.close());
    const reports: FloatingReport[] = [];
    return {
      plugin,
      serverId,
      reports,
      set: (next: Partial<ApiDesired>) => void (wanted = { ...wanted, ...next }),
      edge: (is: boolean) => void (answers = is),
      /** As the reconciler does. Returns what was made, or the code of the failure. */
      run: async (): Promise<string> => {
        const looked = (report: FloatingReport): void => void reports.push(report);
        try {
          const { made } = await runPlugin(plugin, wanted, { signal, undoTimeoutMs: 1000, looked });
          return made.map(({ kind }) => kind).join();
        } catch (error) {
          if (error instanceof RunFailure) return error.reason.code;
          throw error;
        }
      },
      report: () => reports.at(-1),
    };
  };
  return { api, time, node, tokenFile, baseUrl };
}

const owner = (name: string, id: string, from: Owner['from']): Owner => ({ name, id, from });

/** What an operator reads. */
const SENTENCES: Readonly<Record<string, RegExp>> = {
  'floating-token': / does not accept this token: .+; the floating IP stays where it is/,
  'floating-scope': /^the token lacks .+: .+; the floating IP stays where it is|droplet:read/,
  'floating-address': /knows no floating IP [0-9.]+ with this token/,
  'floating-busy': /has not finished an action on the floating IP or this server: ./,
  'floating-refused': /refuses to assign the floating IP to this server: not like this/,
  'floating-limited': /accepts no calls for 30 s; the floating IP stays where it is/,
  'floating-api-down': /does not answer about the floating IP: .+; it stays where it is/,
};

for (const provider of PROVIDERS) {
  t.test(`${provider}: observed, ordered, observed again`, async (t) => {
    const { api, node, time } = await scene(t, { provider });
    const { run, report, serverId } = node(2);
    t.equal(await run(), 'assign');
    t.equal(api.owner(A), serverId);
    const methods = api.calls.map(({ what }) => what.split(' ')[0]);
    t.equal(methods.indexOf('GET'), 0, 'a look is the first');
    t.equal(methods.at(-1), 'GET', 'and the last');
    t.equal(api.orders.length, 1);
    t.match(report(), {
      holds: true,
      server: `${serverId} ready`,
      seen: `${A} is assigned to this node`,
      alarms: [],
    });
    time.ms += 9_000;
    const before = api.calls.length;
    t.equal(await run(), '');
    t.equal(api.calls.length, before, 'a holder is not asked again before ten seconds');
    api.put(A, idOf(provider, 3));
    time.ms += 1_000;
    t.equal(await run(), '');
    t.match(report(), { holds: false });
    t.equal(api.orders.length, 1, 'a server of no member is left alone');
  });

  t.test(`${provider}: an order that lags is not repeated`, async (t) => {
    const { api, node, time } = await scene(t, { provider, lagMs: 300 });
    const { run, serverId, report } = node(2);
    t.equal(await run(), 'assign');
    t.match(report(), { holds: false, alarms: [] });
    for (let count = 0; count < 5; count += 1) {
      time.ms += 1_100;
      t.equal(await run(), '');
    }
    await until(() => api.owner(A) === serverId, { what: 'the order is done' });
    time.ms += 1_100;
    await run();
    t.match(report(), { holds: true });
    t.equal(api.orders.length, 1);
  });

  t.test(`${provider}: each answer has its meaning, and moves nothing`, async (t) => {
    const none = { digitalocean: 'scope', hetzner: 'api-down', upcloud: 'address' }[provider];
    const faults: readonly (readonly [Fault, string])[] = [
      [{ status: 401, said: `no ${TOKEN}` }, 'floating-token'],
      [{ status: 403, said: 'forbidden' }, 'floating-scope'],
      [{ status: 404 }, `floating-${none}`],
      [{ status: 409, said: 'conflict' }, 'floating-busy'],
      [{ status: 423, said: 'locked' }, 'floating-busy'],
      [{ status: 422, said: 'not like this' }, 'floating-refused'],
      [{ status: 429, retryAfter: 30 }, 'floating-limited'],
      [{ status: 500 }, 'floating-api-down'],
      ['html', 'floating-api-down'],
      ['redirect', 'floating-api-down'],
      ['cut', 'floating-api-down'],
      ['endless', 'floating-api-down'],
    ];
    for (const [fault, code] of faults) {
      const { api, node } = await scene(t, { provider });
      const { run, report } = node(2);
      api.faults.push(fault);
      t.equal(await run(), '', 'nothing is ordered');
      const alarm = { code, message: SENTENCES[code], next: /.{20}/ };
      t.match(report(), { alarms: [alarm], holds: false }, JSON.stringify(fault));
      t.equal(api.calls.length, 1, 'no redirect is followed');
      t.notOk(JSON.stringify(report()).includes(TOKEN));
    }
    const { node, api } = await scene(t, { provider });
    api.close();
    const { run, report } = node(2);
    t.equal(await run(), '');
    t.match(report(), { alarms: [{ code: 'floating-api-down' }] }, 'nobody listens');
  });

  t.test(
    `${provider}: an order that fails is tried again later, and one that may be done is checked`,
    async (t) => {
      const { api, node, time } = await scene(t, { provider });
      const { run, report, serverId } = node(2);
      api.writeFaults.push({ status: 422, said: 'not like this' }, { status: 423, said: 'locked' });
      t.equal(await run(), 'floating-refused');
      t.equal(await run(), '', 'not at once');
      time.ms += 1_100;
      t.equal(await run(), 'floating-busy');
      time.ms += 1_100;
      t.equal(await run(), '', 'after twice as long');
      time.ms += 1_100;
      api.writeFaults.push('cut');
      t.equal(await run(), 'floating-api-down', 'the order is done, and its answer is cut');
      t.equal(api.owner(A), serverId);
      time.ms += 1_100;
      t.equal(await run(), '');
      t.match(report(), { holds: true, alarms: [] });
      t.equal(api.orders.length, 3);
    },
  );
}

t.test(
  'who has orders refused for ten seconds is passed over, and may try again after a minute',
  async (t) => {
    const { api, node, time } = await scene(t);
    const { run, report } = node(2);
    const ready = (): boolean => / ready/.test(report()?.server ?? '');
    for (let count = 0; count < 14; count += 1) {
      api.writeFaults.splice(0, 9, { status: 403, said: 'forbidden' });
      await run();
      time.ms += 1_100;
    }
    t.notOk(ready());
    t.match(report(), { alarms: [{ code: 'floating-scope' }], server: '2 floating-scope' });
    t.ok(api.orders.length <= 5, `${api.orders.length} orders`);
    api.writeFaults.length = 0;
    const { run: other, report: otherReport } = node(3);
    t.equal(await other(), 'assign');
    t.match(otherReport(), { holds: true });
    time.ms += 61_000;
    await run();
    t.ok(ready());
  },
);

t.test('while the provider does not answer nothing moves, and soon after it does', async (t) => {
  const { api, node, time } = await scene(t);
  const { run, report } = node(2);
  const startMs = time.ms;
  while (time.ms - startMs < 60_000) {
    api.faults.splice(0, 9, { status: 503 });
    await run();
    if (time.ms - startMs >= 12_000) t.notOk(/ready/.test(report()?.server ?? ''), 'another may take');
    time.ms += 500;
  }
  t.ok(api.calls.length <= 8, `${api.calls.length} calls in a minute`);
  t.equal(api.orders.length, 0);
  api.faults.length = 0;
  const backMs = time.ms;
  while (api.owner(A) !== '2' && time.ms - backMs < 60_000) {
    await run();
    time.ms += 500;
  }
  t.ok(time.ms - backMs <= 15_500, `moved after ${time.ms - backMs} ms`);
});

t.test('a token that cannot be read, or may not read droplets, is named, and shown nowhere', async (t) => {
  const { api, node, time, tokenFile } = await scene(t, { assigned: { [A]: '1' } });
  const { run, report } = node(2);
  for (const bad of ['', 'short', `${TOKEN}\nx: y`, 'ä'.repeat(40)]) {
    await writeFile(tokenFile, bad);
    t.equal(await run(), '');
    t.match(report()?.alarms, [{ code: 'floating-token' }]);
    if (bad !== '') t.notOk(JSON.stringify(report()).includes(bad));
    time.ms += 15_000;
  }
  t.equal(api.calls.length, 0);
  await writeFile(tokenFile, `${TOKEN}\n`);
  api.blind = true;
  t.equal(await run(), '', 'an address that looks free is not taken for free');
  t.match(report()?.alarms, [{ code: 'floating-scope', message: /droplet:read/ }]);
  t.equal(api.orders.length, 0);
});

t.test('an address of another region cannot be assigned, and this node gives way', async (t) => {
  const { api, node } = await scene(t, { region: 'nyc3' });
  const { run, report } = node(2);
  t.equal(await run(), '');
  t.match(report(), { server: '2 floating-region', alarms: [{ code: 'floating-region' }] });
  t.equal(api.orders.length, 0);
});

t.test('the address of a dead holder is asked first', async (t) => {
  const { api, node, time } = await scene(t);
  const { run, report, plugin, edge } = node(2, { others: [owner('app1/app', '1', 'unheard')] });
  const heard: string[] = [];
  t.teardown(plugin.watch((what) => heard.push(what)));
  const pass = setInterval(() => (time.ms += 100), 100);
  t.teardown(() => clearInterval(pass));
  t.equal(await run(), '', 'it was not asked yet');
  edge(true);
  await until(() => heard.some((what) => what.endsWith(' answers')), { what: 'it was asked' });
  t.equal(await run(), '');
  t.match(report(), { alarms: [{ code: 'floating-serves' }] });
  edge(false);
  await until(() => heard.some((what) => /no longer answers/.test(what)), {
    what: 'it was asked three times',
  });
  await until(async () => (await run()) === 'assign', { what: 'it is taken' });
  t.equal(api.owner(A), '2');
});

t.test('two that call at the same time, a hundred times: one has it, and both know', async (t) => {
  const { api, node, time } = await scene(t);
  const [two, three] = [node(2), node(3)];
  for (let count = 0; count < 100; count += 1) {
    api.put(A, '1');
    time.ms += 61_000;
    await Promise.all([two.run(), three.run()]);
    // The word of the other has come: the loser decides again, and looks.
    time.ms += 10_000;
    const loser = api.owner(A) === '2' ? three : two;
    const winner = loser === two ? three : two;
    loser.set({ take: false });
    t.strictSame(await Promise.all([loser.run(), winner.run()]), ['', '']);
    t.strictSame([two.report()?.holds, three.report()?.holds], [winner === two, winner === three]);
    loser.set({ take: true });
  }
  t.ok(api.orders.length <= 200);
});

t.test('what was decided again in between is not ordered any more', async (t) => {
  const { api, node } = await scene(t);
  const { plugin, set } = node(2);
  const wanted: ApiDesired = {
    ...{ addresses: [A], device: '', take: true, barred: undefined, ask: undefined, silentTo: [], why: 'x' },
    others: [owner('app1/app', '1', 'given')],
  };
  const planned = plugin.plan(wanted, await plugin.observe(signal));
  t.match(planned, [{ kind: 'assign' }]);
  set({ take: false });
  await plugin.apply(planned, signal, () => t.fail('made'));
  t.equal(api.orders.length, 0);
});

t.test(
  'assigned here and silent to another: ordered once more, whatever comes of it, then reported',
  async (t) => {
    for (const fault of [undefined, { status: 422, said: 'is assigned already' }]) {
      const { api, node, time } = await scene(t);
      const { run, report, set } = node(2);
      t.equal(await run(), 'assign');
      set({ silentTo: ['app3/app'] });
      time.ms += 10_000;
      if (fault !== undefined) api.writeFaults.push(fault);
      t.equal(await run(), fault === undefined ? 'assign' : 'floating-refused');
      for (let count = 0; count < 3; count += 1) {
        time.ms += 10_000;
        t.equal(await run(), '');
      }
      t.equal(api.orders.length, 2);
      t.match(report(), {
        holds: true,
        alarms: [{ code: 'floating-unmoved', message: /this node, but does not answer/ }],
      });
    }
  },
);

t.test('an operator sees where they are, and has them taken whoever has them', async (t) => {
  const { api, node, time } = await scene(t, { assigned: { [A]: '9' } });
  const { plugin, set, run, report } = node(2);
  t.equal(await run(), '');
  t.match(report()?.alarms, [{ code: 'floating-foreign' }]);
  time.ms += 2_000;
  const shown = (await plugin.ask('show', {}, signal)) as FloatingShown;
  t.match(shown, {
    provider: 'DigitalOcean',
    server: '2',
    addresses: [{ address: A, server: '9', owner: 'server 9, no member', known: true, busy: false }],
    findings: [{ code: 'floating-foreign' }],
  });
  set({ barred: 'maintenance' });
  await t.rejects(plugin.ask('take', {}, signal), { code: 'floating-not-fit', message: /maintenance/ });
  set({ barred: undefined });
  t.match(await plugin.ask('take', {}, signal), { done: true, message: /assignment to this node requested/ });
  t.equal(api.owner(A), '2');
  time.ms += 2_000;
  t.match(await plugin.ask('take', {}, signal), { message: /already/ });
  t.equal(api.orders.length, 1);
});

t.test('never more than sixty calls in a minute', async (t) => {
  const { api, node, time } = await scene(t);
  const { plugin } = node(2, { take: false });
  const startMs = time.ms;
  while (time.ms - startMs < 59_000) {
    await plugin.ask('show', {}, signal);
    time.ms += 100;
  }
  t.equal(api.calls.length, 60);
});

t.test('a program of the operator’s is asked and ordered by its arguments alone', async (t) => {
  const directory = t.testdir();
  const file = join(directory, 'fip');
  const program =
    `#!/bin/sh\necho "$@" >>${directory}/said\n[ ! -e ${directory}/bad ] || { echo "not now" >&2; exit 3; }\n` +
    `case $2 in show) cat ${directory}/owner;; assign) echo "$4" >${directory}/owner;; esac\n`;
  await writeFile(file, program, { mode: 0o755 });
  await writeFile(join(directory, 'owner'), 'i-1\n');
  const settings = { provider: 'command' as const, tokenFile: '', publicDevice: '' };
  const provider = providerOf({ ...settings, command: [file, 'a b'], serverId: 'i-2' }, () => 0);
  t.strictSame(await provider.look([A], 'i-2', signal), new Map([[A, { to: 'i-1', busy: false }]]));
  await provider.assign(A, 'i-2', signal);
  t.strictSame((await provider.look([A], 'i-2', signal)).get(A)?.to, 'i-2');
  await writeFile(join(directory, 'owner'), '');
  t.strictSame((await provider.look([A], 'i-2', signal)).get(A)?.to, undefined);
  t.equal(
    await readFile(join(directory, 'said'), 'utf8').then((text) => text.split('\n')[1]),
    `a b assign ${A} i-2`,
  );
  await writeFile(join(directory, 'owner'), 'two words\n');
  await t.rejects(provider.look([A], 'i-2', signal), { code: 'floating-api-down' });
  await writeFile(join(directory, 'bad'), '');
  await t.rejects(provider.look([A], 'i-2', signal), {
    code: 'floating-api-down',
    message: /ended with 3: not now/,
  });
});

t.test(
  'the program of a node: its dead holder’s address answers, then is silent, and is taken',
  async (t) => {
    const directory = t.testdir();
    const [file, owner] = [join(directory, 'fip'), join(directory, 'owner')];
    await writeFile(file, `#!/bin/sh\ncase $1 in show) cat ${owner};; assign) echo "$3" >${owner};; esac\n`, {
      mode: 0o755,
    });
    await writeFile(owner, 'i-2\n');
    const edge = await edgeAt('127.0.0.77', directory);
    t.teardown(() => edge.close());
    const config = configOf(
      'app',
      `[edge]\nhttps_port = ${edge.port}\n[floating]\nmode = "api"\nprovider = "command"\n` +
        `addresses = ["127.0.0.77"]\ncommand = ["${file}"]\nserver_id = "i-1"\n`,
    );
    const others = [
      believed('app2/app', { state: 'dead' }, { server: 'i-2 ready', floating: 'held' }),
      believed('app3/app', {}, { server: 'i-3 ready' }),
    ];
    let report: FloatingReport | undefined;
    const now = () => {
      const self = believed('app1/app', {}, report?.server === undefined ? {} : { server: report.server });
      return look(nodeScene([self, ...others], { config, holds: report?.holds ?? false }), EMPTY_MEMORY);
    };
    const reconciler = new Reconciler(DEFAULT_RECONCILER_OPTIONS, {
      clock: systemClock,
      audit: () => undefined,
    });
    t.teardown(() => reconciler.close());
    const programs = new KeptPrograms(
      PROGRAMS.filter(({ name }) => name === 'floating'),
      {
        ...{ config, reconciler, last: now, clock: systemClock },
        node: {
          look: now,
          turn: () => {
            report = programs.report('floating') as FloatingReport | undefined;
            programs.follow(now(), [{ text: 'a turn', subjects: [] }]);
          },
        },
        ...({} as Pick<KeptProgramsDependencies, 'paths' | 'secrets' | 'progress' | 'site'>),
      },
    );
    await programs.start();
    const code = () => report?.alarms[0]?.code;
    await until(() => code() === 'floating-serves' || Promise.reject(new Error(report?.seen)), {
      what: 'the edge of the dead daemon is asked',
    });
    t.equal(await readFile(owner, 'utf8'), 'i-2\n');
    t.strictSame([...edge.asked], ['/.well-known/bornemisza/serves']);
    edge.close();
    await until(() => report?.holds === true || Promise.reject(new Error(report?.seen)), {
      what: 'it is taken',
    });
    t.equal(await readFile(owner, 'utf8'), 'i-1\n');
    t.match(report, { server: 'i-1 ready', seen: '127.0.0.77 is assigned to this node', alarms: [] });
  },
);

const believed = (name: string, changes: Partial<Member>, tags: Record<string, string>): Member => {
  const member = asBelieved(name, changes);
  return { ...member, record: { ...member.record, tags } };
};

/** An edge that answers visitors, and which paths it was asked for. */
async function edgeAt(address: string, directory: string) {
  const { key, cert } = await selfSigned(directory, 'edge');
  const asked = new Set<string>();
  const files = { key: await readFile(key), cert: await readFile(cert) };
  const server = createServer(files, ({ url = '' }, response) => {
    asked.add(url);
    response.end('ok');
  });
  await new Promise<void>((resolve) => void server.listen(0, address, resolve));
  const close = (): void => {
    server.closeAllConnections();
    server.close();
  };
  return { port: (server.address() as AddressInfo).port, asked, close };
}

t.test('this server’s own name comes from the metadata service', async (t) => {
  const { api, baseUrl, tokenFile } = await scene(t);
  const settings = { tokenFile, serverId: undefined, command: [], publicDevice: 'no-device', baseUrl };
  const of = (provider: ApiProvider, path: string) =>
    providerOf({ ...settings, provider, metadataUrl: `${baseUrl}${path}` }, () => 0);
  const digitalocean = of('digitalocean', '/metadata/v1');
  await t.rejects(digitalocean.self(signal), { code: 'floating-identity' });
  api.servers.set('127.0.0.1', '1');
  t.equal(await digitalocean.self(signal), '1');
  t.equal(await of('hetzner', '/hetzner/v1/metadata').self(signal), '1');
  await t.rejects(of('upcloud', '').self(signal), { code: 'floating-identity', message: /no-device/ });
  t.equal(await digitalocean.active?.(signal), true);
  api.put(A, '5');
  t.equal(await digitalocean.active?.(signal), false);
});
