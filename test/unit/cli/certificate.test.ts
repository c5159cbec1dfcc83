import t from 'tap';
import { ControlClient } from '../../../src/cli/client.ts';
import { checkCertificate, type Lookup } from '../../../src/cli/doctor/certificate.ts';
import { areaOf } from '../../../src/cli/doctor/check.ts';
import type { CertificateShown } from '../../../src/daemon/control/api.ts';
import { pathsFor } from '../../../src/daemon/config/config.ts';
import { runCli } from './captured-io.ts';
import { type Answer, FakeDaemon, member, refusal, status } from './fake-daemon.ts';
import { place } from './place.ts';

const DAY_MS = 86_400_000;
const at = (days: number): string => new Date(Date.now() + days * DAY_MS).toISOString();
const SHA = 'ab'.repeat(32);
const ANSWER: CertificateShown = {
  names: ['shop.example', 'www.shop.example'],
  url: 'https://shop.example/',
  challenge: 'http-01',
  directory: 'https://acme-v02.api.letsencrypt.org/directory',
  orderer: 'app1/app orders',
  current: {
    ...{
      names: ['shop.example', 'www.shop.example'],
      issuer: 'R11, Let’s Encrypt',
      serial: '04a1',
      sha256: SHA,
    },
    ...{ from: at(-10), ends: at(80.01), revoked: false },
  },
  next: { at: at(50), why: 'the CA set the time' },
  edges: [
    { name: 'app1/app', sha256: SHA },
    { name: 'app2/app', sha256: 'cd'.repeat(32) },
    { name: 'app3/app' },
  ],
};

async function daemon(
  t: { teardown(end: () => unknown): unknown },
  answers: Readonly<Record<string, Answer>>,
) {
  const root = await place(t);
  const fake = await new FakeDaemon(root, 'app', answers).start();
  t.teardown(() => fake.stop());
  return { root, fake };
}

t.test('certificate show says what it is, when the next one comes, and what each edge serves', async (t) => {
  const { root } = await daemon(t, { 'GET /v1/certificate': { json: ANSWER } });
  const { code, out } = await runCli(['certificate', 'show', '--root', root]);
  t.equal(code, 0);
  t.match(out, /issuer +R11, Let’s Encrypt/);
  t.match(out, /serial +04a1/);
  t.match(out, /issued .*, 10 d ago/);
  t.match(out, /ends .*, 80 d left/);
  t.match(out, /next .*: the CA set the time/);
  t.match(out, /ordered by +app1\/app orders\n/);
  t.match(out, /app1\/app +this certificate/);
  t.match(out, /app2\/app +another certificate, SHA-256\s+cdcd/);
  t.match(out, /app3\/app +nothing/);
  const json = await runCli(['certificate', 'show', '--json', '--root', root]);
  t.strictSame(JSON.parse(json.out), JSON.parse(JSON.stringify(ANSWER)));
});

t.test('certificate show says what went wrong, and what to do', async (t) => {
  const problem = {
    code: 'certificate-refused',
    message: 'the CA could not check shop.example',
    next: 'open port 80',
  };
  const { current: _, next: __, ...rest } = ANSWER;
  const since = '2026-11-29T10:00:00.000Z';
  const answer = {
    ...rest,
    problem,
    failingSince: since,
    order: { since, waits: 'the CA checks the names' },
  };
  const { root } = await daemon(t, { 'GET /v1/certificate': { json: answer } });
  const { out } = await runCli(['certificate', 'show', '--root', root]);
  t.match(out, /certificate +none yet/);
  t.match(out, /order +open since 2026-11-29 .*; waits: the CA checks the names/);
  t.match(out, /no order has succeeded since 2026-11-29/);
  t.match(out, '! the CA could not check shop.example (certificate-refused)\n  next: open port 80');
});

t.test('certificate revoke asks before, for the name of the site; a script says --yes', async (t) => {
  const done = { done: true, message: 'the certificate abab is revoked when all edges serve the next one' };
  const answers = { 'POST /v1/certificate/revoke': { json: done }, 'GET /v1/certificate': { json: ANSWER } };
  const { root, fake } = await daemon(t, answers);
  const revoke = (args: readonly string[], io = {}) =>
    runCli(['certificate', 'revoke', ...args, '--root', root], io);
  t.match(await revoke([]), {
    code: 2,
    err: /nothing was revoked\n {2}next: without a terminal, pass --yes/,
  });
  t.match(await revoke(['--reason', 'curiosity', '--yes']), { code: 2, err: /keyCompromise, superseded/ });
  t.match(await revoke([], { answers: ['www'] }), {
    code: 2,
    err: /serial 04a1, until .*\n.*\n?.*type the name/s,
  });
  t.strictSame(
    fake.asked.filter(({ path }) => path.endsWith('/revoke')),
    [],
  );
  t.match(await revoke([], { answers: ['shop.example'] }), { code: 0, out: `${done.message}\n` });
  t.match(await revoke(['--now', '--yes', '--reason', 'superseded', '--json']), {
    code: 0,
    out: /"done": ?true/,
  });
  t.strictSame(
    fake.asked.filter(({ path }) => path.endsWith('/revoke')).map(({ body }) => body),
    [
      { reason: 'keyCompromise', now: false },
      { reason: 'superseded', now: true },
    ],
  );
});

t.test('certificate renew asks the daemon, and gives its refusal out', async (t) => {
  const done = { done: true, message: 'a certificate for shop.example will be ordered now; app1/app orders' };
  const { root, fake } = await daemon(t, { 'POST /v1/certificate/renew': { json: done } });
  const { code, out } = await runCli(['certificate', 'renew', '--root', root]);
  t.strictSame([code, out], [0, `${done.message}\n`]);
  t.match((await runCli(['certificate', 'renew', '--force', '--json', '--root', root])).out, /"done": ?true/);
  t.strictSame(
    fake.asked.map(({ body }) => body),
    [{ force: false }, { force: true }],
  );
  const held = refusal('certificate-limited', 'no certificate is ordered before 10:00', 'renew --force');
  const other = await daemon(t, { 'POST /v1/certificate/renew': { status: 409, json: held } });
  t.match(await runCli(['certificate', 'renew', '--root', other.root]), {
    code: 1,
    err: /no certificate is ordered before 10:00\n {2}next: renew --force/,
  });
});

t.test('status has one line for it', async (t) => {
  const { edges: _, ...facts } = ANSWER;
  const plugins = status().plugins.map((each) => ({ ...each, name: 'certificates', facts }));
  const { root } = await daemon(t, { 'GET /v1/status': { json: status({ plugins }) } });
  t.match(
    (await runCli(['status', '--root', root])).out,
    /site +https:\/\/shop\.example\/ certificate ends .*80 d left; next order .* \(the CA set the time\)\n/,
  );
});

const none = async (): Promise<never> => Promise.reject(new Error('ENOTFOUND'));
const here: Lookup = { resolve4: async () => ['203.0.113.10'], resolve6: none, resolveCaa: none };

t.test('doctor checks its life, all edges, the names and who may sign', async (t) => {
  const apps = ['app1/app', 'app2/app'].map((name) => member({ name, tags: { orders: 'ready' } }));
  const well = { ...ANSWER, edges: [{ name: 'app1/app', sha256: SHA }] };
  const problem = { code: 'certificate-refused', message: 'the CA could not check it', next: 'open port 80' };
  const current = ANSWER.current as NonNullable<CertificateShown['current']>;
  type Case = readonly [
    what: string,
    answer: CertificateShown,
    lookup: Partial<Lookup>,
    members: typeof apps,
    found: string | undefined,
  ];
  const caa = (name: string, issue: string): Partial<Lookup> => ({
    resolveCaa: async (asked) => (asked === name ? [{ issue }] : []),
  });
  const cases: readonly Case[] = [
    ['all is well', well, {}, apps, undefined],
    ['orders fail', { ...well, problem, failingSince: at(-1) }, {}, apps, 'warn site certificate'],
    [
      'and there is none',
      { ...well, current: undefined, problem, failingSince: at(-1) },
      {},
      apps,
      'fail site certificate',
    ],
    ['none yet', { ...well, current: undefined }, {}, apps, 'warn site certificate'],
    ['it ended', { ...well, current: { ...current, ends: at(-1) } }, {}, apps, 'fail site certificate'],
    ['an edge serves another', { ...well, edges: ANSWER.edges }, {}, apps, 'fail edges'],
    ['an edge is silent', { ...well, edges: [{ name: 'app1/app' }] }, {}, apps, 'warn edges'],
    ['one can order', well, {}, [...apps.slice(1), member({ name: 'app1/app' })], 'warn orderers'],
    ['a name leads nowhere', well, { resolve4: none }, apps, 'fail name shop.example'],
    ['a name leads elsewhere', well, { resolve4: async () => ['192.0.2.1'] }, apps, 'warn name shop.example'],
    [
      'to a node',
      well,
      { resolve6: async () => ['2001:db8::1'] },
      [...apps, member({ name: 'app3/app', tags: { public: '2001:db8::1' } })],
      undefined,
    ],
    ['another CA may sign', well, caa('shop.example', 'pki.goog; a=b'), apps, 'fail CAA'],
    ['this CA may sign', well, caa('shop.example', 'letsencrypt.org'), apps, undefined],
    [
      'the parent forbids',
      { ...well, names: ['a.b.shop.example'] },
      caa('shop.example', 'pki.goog'),
      apps,
      'fail CAA',
    ],
    [
      'a CA that we do not know',
      { ...well, directory: 'https://ca.example/dir' },
      caa('shop.example', 'x'),
      apps,
      undefined,
    ],
  ];
  for (const [what, answer, lookup, members, found] of cases) {
    const { root } = await daemon(t, { 'GET /v1/certificate': { json: answer } });
    const client = new ControlClient(pathsFor('app', root).controlSocket, 'app');
    const floating = ['203.0.113.10'];
    const checks = await checkCertificate(client, { floating }, members, areaOf('app'), {
      ...here,
      ...lookup,
    });
    const [bad] = checks.filter(({ state }) => state !== 'ok');
    t.equal(bad && `${bad.state} ${bad.name}`, found, what);
  }
});
