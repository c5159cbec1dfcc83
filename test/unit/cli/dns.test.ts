import t from 'tap';
import type { DnsShown } from '../../../src/daemon/control/api.ts';
import { runCli } from './captured-io.ts';
import { FakeDaemon, refusal } from './fake-daemon.ts';
import { place } from './place.ts';

const ANSWER: DnsShown = {
  zone: 'shop.example',
  writer: 'app1/app writes them',
  sets: [
    { name: 'shop.example', type: 'A', wanted: ['192.0.2.1'], present: ['192.0.2.1'], whose: 'ours' },
    { name: 'www.shop.example', type: 'A', wanted: ['192.0.2.1'], present: ['192.0.2.9'], whose: 'yours' },
  ],
  findings: [
    {
      code: 'dns-foreign',
      message: 'www.shop.example has an A record without our mark',
      next: 'bornemisza dns adopt',
    },
  ],
};

t.test('dns show lists wanted and present records and their owner', async (t) => {
  const root = await place(t);
  const fake = await new FakeDaemon(root, 'app', { 'GET /v1/dns': { json: ANSWER } }).start();
  t.teardown(() => fake.stop());
  const { code, out } = await runCli(['dns', 'show', '--root', root], { columns: 160 });
  t.equal(code, 0);
  t.match(out, 'zone shop.example; app1/app writes them');
  t.match(out, /^shop\.example +A +the cluster’s +192\.0\.2\.1 +as wanted$/m);
  t.match(out, /^www\.shop\.example +A +yours +192\.0\.2\.1 +192\.0\.2\.9$/m);
  t.match(out, /! www\.shop\.example has an A record without our mark \(dns-foreign\)/);
  t.strictSame(JSON.parse((await runCli(['dns', 'show', '--json', '--root', root])).out), ANSWER);
});

t.test('dns adopt and release name one set, and refuse what is none', async (t) => {
  const root = await place(t);
  const done = { done: true, message: 'shop.example A is the cluster’s now' };
  const unknown = refusal('dns-set-unknown', 'www.shop.example has no SRV record', 'bornemisza dns show');
  const fake = await new FakeDaemon(root, 'app', {
    'POST /v1/dns/adopt': { json: done },
    'POST /v1/dns/release': { status: 404, json: unknown },
  }).start();
  t.teardown(() => fake.stop());
  const adopted = await runCli(['dns', 'adopt', 'Shop.Example.', 'a', '--root', root]);
  t.strictSame([adopted.code, adopted.out], [0, `${done.message}\n`]);
  t.match(await runCli(['dns', 'release', 'www.shop.example', 'SRV', '--root', root]), {
    code: 1,
    err: /has no SRV record/,
  });
  t.strictSame(
    fake.asked.map(({ body }) => body),
    [
      { name: 'shop.example', type: 'A' },
      { name: 'www.shop.example', type: 'SRV' },
    ],
  );
  for (const words of [
    ['shop.example', 'MX'],
    ['shop example', 'A'],
    ['shop.example\nsend', 'A'],
    ['shop.example'],
  ])
    t.equal((await runCli(['dns', 'adopt', ...words, '--root', root])).code, 2, words.join(' '));
  t.equal(fake.asked.length, 2);
});
