import { execFile } from 'node:child_process';
import { Resolver } from 'node:dns/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';
import t from 'tap';
import { type DnsChange, planDns } from '../../src/plugins/dns/plan.ts';
import { DnsPlugin } from '../../src/plugins/dns/plugin.ts';
import { Rfc2136Provider } from '../../src/plugins/dns/rfc2136.ts';
import { lackingAt } from '../../src/host/txt-records.ts';
import { freePort } from '../support/free-port.ts';
import { startBind, ZONE } from './bind-bed.ts';
import { wishes } from './dns-wishes.ts';

const run = promisify(execFile);
const signal = new AbortController().signal;
const FOUNDERS = `
@ IN MX 10 mail
@ IN TXT "v=spf1 mx -all"
@ IN CAA 0 issue "letsencrypt.org"
mail IN A 198.51.100.25
_acme-challenge IN TXT "of-another-program"
_acme-challenge.alias IN CNAME elsewhere
www IN CNAME shop.example.
app1 IN A 198.51.100.1
`;

let directory = '';
let port = 0;
let provider: Rfc2136Provider;

t.before(async () => {
  ({ directory, port, provider } = await startBind(t, FOUNDERS));
});

const founders = async (at = provider): Promise<string[]> =>
  (await at.list(signal))
    .filter(
      ({ owner, type, name }) => owner === undefined && type !== 'SOA' && !name.startsWith('_bornemisza'),
    )
    .map(({ name, type, value, ttlS }) => `${name} ${ttlS} ${type} ${value}`)
    .sort();
const SETS = [
  { name: ZONE, type: 'A', values: ['192.0.2.1', '192.0.2.2'], ttlS: 60, guard: 'serves' },
  { name: `app1.${ZONE}`, type: 'A', values: ['192.0.2.1'], ttlS: 60, guard: 'serves' },
  {
    name: `_app._tcp.${ZONE}`,
    type: 'SRV',
    values: [`1 0 4101 internal.app1.${ZONE}`],
    ttlS: 60,
    guard: 'finds',
  },
  { name: `internal.app1.${ZONE}`, type: 'A', values: ['10.0.0.11'], ttlS: 60, guard: 'finds' },
] as const;

/** Looks and changes until nothing is left, as the reconciler would. */
async function converge(
  sets: (typeof SETS)[number][] | readonly object[],
  owner = 'shop',
  at = provider,
): Promise<DnsChange[]> {
  const made: DnsChange[] = [];
  for (let look = 0; look < 5; look += 1) {
    const { changes } = planDns(
      { owner, sets: sets as typeof SETS, challenges: [], doubtful: [] },
      await at.list(signal),
    );
    if (changes.length === 0) return made;
    for (const change of changes) await at.change(change, owner, signal);
    made.push(...changes);
  }
  throw new Error('it does not converge');
}

t.test('records come and go by the plan, and the founder’s stay byte-equal', async (t) => {
  const before = await founders();
  t.equal(before.length, 10);
  await converge(SETS);
  const { stdout } = await run('dig', [
    '+short',
    '-p',
    String(port),
    '@127.0.0.1',
    `_app._tcp.${ZONE}`,
    'SRV',
  ]);
  t.equal(stdout, `1 0 4101 internal.app1.${ZONE}.\n`);
  t.strictSame(
    planDns({ owner: 'shop', sets: SETS, challenges: [], doubtful: [] }, await provider.list(signal)).findings
      .length,
    1,
    'app1',
  );
  const other = await converge([{ ...SETS[0], values: ['192.0.2.3'] }]);
  t.ok(other.findIndex(({ kind }) => kind === 'add') < other.findIndex(({ kind }) => kind === 'remove'));
  t.strictSame(
    (await provider.list(signal)).filter(({ owner }) => owner === 'shop').map(({ value }) => value),
    ['192.0.2.3'],
  );
  t.strictSame(await founders(), before);
});

/** Asks for the site's addresses every 50 ms, as a resolver would. */
function resolver(ofPort: number) {
  const asker = new Resolver({ timeout: 2000, tries: 1 });
  asker.setServers([`127.0.0.1:${ofPort}`]);
  const over = new AbortController();
  let [asked, empty] = [0, 0];
  const asking = (async () => {
    while (!over.signal.aborted) {
      const code = await asker.resolve4(ZONE).then(
        () => 'found',
        (error: NodeJS.ErrnoException) => error.code,
      );
      asked += 1;
      if (code === 'ENODATA' || code === 'ENOTFOUND') empty += 1;
      await pause(50);
    }
  })();
  return async () => {
    over.abort();
    await asking;
    return { asked, empty };
  };
}

t.test(
  'through 500 random changes the founder’s rows stay, and no resolver finds the site’s name empty',
  async (t) => {
    const own = Array.from({ length: 20 }, (_, at) => `n${at} IN A 198.51.100.${at + 1}\n`).join('');
    const bind = await startBind(t, `${FOUNDERS.replace('www IN CNAME shop.example.\napp1', 'www')}${own}`);
    const before = await founders(bind.provider);
    t.equal(before.length, 29);
    await converge([SETS[0]], 'shop', bind.provider);
    const end = resolver(bind.port);
    let made = 0;
    for (const sets of wishes(ZONE, 7)) {
      made += (await converge(sets, 'shop', bind.provider)).length;
      if (made >= 500) break;
    }
    const { asked, empty } = await end();
    t.comment(`asked ${asked} times`);
    t.ok(asked > 20);
    t.equal(empty, 0);
    t.strictSame(await founders(bind.provider), before);
  },
);

t.test('a set is adopted and released by its mark alone', async (t) => {
  const before = await founders();
  const wanted = [{ ...SETS[1], values: ['198.51.100.2'] }];
  const desired = {
    zone: ZONE,
    owner: 'shop',
    writer: true,
    why: 'x',
    sets: wanted,
    challenges: [],
    doubtful: [],
  };
  const plugin = new DnsPlugin({ provider, desired: () => desired, ask: async () => true, nowMs: () => 0 });
  t.teardown(() => plugin.close());
  const set = { name: `app1.${ZONE}`, type: 'A' as const };
  t.match((await plugin.show(signal)).sets, [{ name: set.name, whose: 'yours', present: ['198.51.100.1'] }]);
  t.match(await plugin.ask('adopt', set, signal), { message: /is the cluster’s now/ });
  t.match((await plugin.show(signal)).sets, [{ whose: 'ours', present: ['198.51.100.1'] }]);
  await converge(wanted);
  t.match((await plugin.show(signal)).sets, [{ whose: 'ours', present: ['198.51.100.2'] }]);
  t.match(await plugin.ask('release', set, signal), { message: /is yours now/ });
  t.match(await plugin.ask('release', set, signal), { message: /is already yours/ });
  t.match((await plugin.show(signal)).sets, [{ whose: 'yours', present: ['198.51.100.2'] }]);
  t.strictSame(await converge([]), [], 'and is left alone');
  // Somebody else marks it between the look and the change.
  const stale = { ...set, ttlS: 60, ids: [], from: 'other', to: 'shop' };
  await t.rejects(provider.mark(stale, signal), { code: 'dns-changed' });
  await t.rejects(provider.mark({ ...stale, from: undefined, name: `none.${ZONE}` }, signal), {
    code: 'dns-changed',
  });
  await t.rejects(plugin.ask('adopt', { name: `mail.${ZONE}`, type: 'A' }, signal), {
    code: 'dns-not-wanted',
  });
  t.strictSame(
    await founders(),
    before.map((each) => (each.startsWith('app1.') ? each.replace(/ 300 A .*/, ' 60 A 198.51.100.2') : each)),
  );
});

t.test('two writers that planned on the same observation do not undo each other', async (t) => {
  const change: DnsChange = {
    kind: 'create',
    name: `two.${ZONE}`,
    type: 'A',
    values: ['192.0.2.7'],
    ttlS: 60,
    last: false,
    ids: [],
    summary: '',
  };
  await provider.change(change, 'shop', signal);
  await t.rejects(provider.change({ ...change, values: ['192.0.2.8'] }, 'other', signal), {
    code: 'dns-changed',
  });
  await t.rejects(provider.change({ ...change, kind: 'remove', last: true }, 'other', signal), {
    code: 'dns-changed',
  });
  const there = (await provider.list(signal)).filter(({ name }) => name === `two.${ZONE}`);
  t.match(there, [{ value: '192.0.2.7', owner: 'shop' }]);
  t.equal(there.length, 1);
});

t.test('answers for a CA are added beside a value of the founder, and removed alone', async (t) => {
  const name = `_acme-challenge.${ZONE}`;
  const before = await founders();
  const challenges = ['One_-1', 'two'].map((value) => ({ name, value }));
  const change = async (of: typeof challenges): Promise<DnsChange[]> => {
    const desired = { owner: 'shop', sets: [], challenges: of, doubtful: [] };
    const { changes } = planDns(desired, await provider.list(signal));
    for (const each of changes) await provider.change(each, 'shop', signal);
    return [...changes];
  };
  // What the tests before left.
  await change([]);
  const servers = [{ name: 'ns', address: `127.0.0.1:${port}` }];
  t.strictSame(await lackingAt(servers, challenges), [{ server: 'ns', name }]);
  t.equal((await change(challenges.slice(0, 1))).length, 1);
  t.strictSame(await lackingAt(servers, challenges), [{ server: 'ns', name }], 'one of two');
  t.equal((await change(challenges)).length, 1);
  t.strictSame(await lackingAt(servers, challenges), []);
  t.strictSame(await change(challenges), [], 'nothing is left to do');
  t.strictSame(await founders(), before, 'also the TTL, which all values of a name share');
  const deaf = { name: 'deaf', address: `127.0.0.1:${await freePort()}` };
  t.strictSame(await lackingAt([...servers, deaf], challenges), [], 'one that does not answer is left out');
  t.equal(await lackingAt([deaf], challenges), undefined);
  t.equal(await lackingAt(servers, [{ name: '_acme-challenge.other.example', value: 'x' }]), undefined);
  const inZone = await provider.list(signal);
  t.equal(inZone.filter((each) => each.name === name && each.owner === 'shop').length, 2);
  t.strictSame(planDns({ owner: 'other', sets: [], challenges: [], doubtful: [] }, inZone).changes, []);
  t.match(await change([]), [{ kind: 'remove', values: ['One_-1', 'two'] }]);
  t.strictSame(await founders(), before);
  const left = (await provider.list(signal)).filter((each) => each.name.startsWith('_bornemisza-txt'));
  t.strictSame(left, [], 'no mark is left');

  const alias = [{ name: `_acme-challenge.alias.${ZONE}`, value: 'three' }];
  t.strictSame(await change(alias), []);
  const stale: DnsChange = {
    ...{ kind: 'add', type: 'TXT', name: alias[0]?.name ?? '', values: ['three'] },
    ...{ ttlS: 60, last: false, ids: [], summary: '' },
  };
  await t.rejects(provider.change(stale, 'shop', signal), { code: 'dns-changed' }, 'a CNAME came since');
  t.strictSame(await founders(), before);
});

t.test('what goes wrong is named', async (t) => {
  const change: DnsChange = {
    kind: 'create',
    name: `x.${ZONE}`,
    type: 'A',
    values: ['192.0.2.7'],
    ttlS: 60,
    last: false,
    ids: [],
    summary: '',
  };
  const at = (more: object) =>
    new Rfc2136Provider({
      zone: ZONE,
      server: '127.0.0.1',
      port,
      keyFile: join(directory, 'good.key'),
      ...more,
    });
  const wrongKey = at({ keyFile: join(directory, 'bad.key') });
  const key = {
    code: 'dns-key',
    message: /^127\.0\.0\.1 refuses the key of shop\.example: .+; the records are not updated$/,
    next: /TSIG allows 300 s/,
  };
  await t.rejects(wrongKey.change(change, 'shop', signal), key);
  await t.rejects(wrongKey.list(signal), key);
  await t.rejects(at({ zone: 'other.example' }).list(signal), {
    code: 'dns-refused',
    message: /^127\.0\.0\.1 does not allow this key to transfer and update other\.example: ./,
    next: /allow-transfer/,
  });
  const deaf = at({ port: await freePort() });
  const unreachable = {
    code: 'dns-unreachable',
    message: /^127\.0\.0\.1 does not answer about shop\.example: .+; the records are not updated$/,
    next: 'ask it by hand: dig @127.0.0.1 shop.example SOA',
  };
  await t.rejects(deaf.list(signal), unreachable);
  await t.rejects(deaf.change(change, 'shop', signal), unreachable);
  for (const value of ['192.0.2.7\nupdate delete shop.example.', '2001:db8::1', ''])
    await t.rejects(
      provider.change({ ...change, values: [value] }, 'shop', signal),
      { code: 'dns-value-refused', message: /is not valid in a DNS record; nothing is changed$/ },
      value,
    );
  await t.rejects(provider.change({ ...change, name: `x\nsend` }, 'shop', signal), {
    code: 'dns-value-refused',
  });
  await t.rejects(provider.change(change, 'shop"\nsend', signal), { code: 'dns-value-refused' });
});
