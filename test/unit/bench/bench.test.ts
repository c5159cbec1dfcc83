import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { Decoder, encode } from '../../bench/msgpack.ts';
import { chosen, percentile } from '../../bench/report.ts';
import { parseNeighbour, withMonit } from '../../bench/rivals.ts';
import { trendOf } from '../../bench/trend.ts';
import { hostFiles } from '../../lab/layers.ts';
import { nodeFlags, unitEnvironment } from '../../bench/unit-flags.ts';

t.test('a benchmark refuses the name of a case that it does not have', async (t) => {
  const all = ['backend', 'edge'] as const;
  t.same([...chosen(all, 'edge')], ['edge']);
  t.same([...chosen(all, 'edge,backend')], ['backend', 'edge'], 'in the order of the benchmark');
  for (const text of ['', 'killed', 'edge,', 'edge, backend', 'EDGE'])
    t.throws(() => chosen(all, text), /is not known; choose from backend, edge/, JSON.stringify(text));
});

t.test('what is sent to serf can be read back, in whatever pieces it comes', async (t) => {
  const values = [
    { Command: 'tags', Seq: 7 },
    { Tags: { sample: 'ü'.repeat(40) }, DeleteTags: [], Flag: true, None: null },
  ];
  const bytes = Buffer.concat(values.map(encode));
  const decoder = new Decoder();
  const read = [];
  for (const byte of bytes) {
    decoder.push(Buffer.from([byte]));
    for (let value = decoder.next(); value !== undefined; value = decoder.next()) read.push(value);
  }
  t.strictSame(read, values);
});

t.test('short forms that serf answers with are read', async (t) => {
  const decoder = new Decoder();
  // {"Seq": 5, "Error": "", "Port": 7946, "Low": -1, "Addr": <4 bytes>}
  decoder.push(
    Buffer.concat([
      Buffer.from([0x85, 0xa3]),
      Buffer.from('Seq'),
      Buffer.from([0x05, 0xa5]),
      Buffer.from('Error'),
      Buffer.from([0xa0, 0xa4]),
      Buffer.from('Port'),
      Buffer.from([0xcd, 0x1f, 0x0a, 0xa3]),
      Buffer.from('Low'),
      Buffer.from([0xff, 0xd9, 0x04]),
      Buffer.from('Addr'),
      Buffer.from([0xc4, 0x02, 1, 2]),
    ]),
  );
  t.strictSame(decoder.next(), { Seq: 5, Error: '', Port: 7946, Low: -1, Addr: new Uint8Array([1, 2]) });
  decoder.push(Buffer.from([0xc1]));
  t.throws(() => decoder.next(), { message: 'MessagePack type 0xc1 is not expected of Serf' });
});

t.test('percentiles are samples, and the 99th of a few is the largest', async (t) => {
  t.equal(percentile([5, 1, 3, 2, 4], 0.5), 3);
  t.equal(percentile([5, 1, 3, 2, 4], 0.99), 5);
});

t.test('a trend is found under noise, and its upper bound is above it', async (t) => {
  const points = Array.from({ length: 100 }, (_, x) => ({ x, y: 3 * x + 50 * Math.sin(x * 12.9898) }));
  const { slope, upper95 } = trendOf(points);
  t.ok(Math.abs(slope - 3) < 0.3, `${slope}`);
  t.ok(upper95 > slope && upper95 < slope + 0.5, `${upper95}`);
  t.equal(trendOf([1, 2, 3].map((x) => ({ x, y: 7 }))).upper95, 0);
});

t.test('members are measured with the flags of the unit', async (t) => {
  t.ok((await nodeFlags()).includes('--optimize-for-size'));
  t.match(await unitEnvironment('bornemisza-app.service'), {
    NODE_ENV: 'production',
    UV_THREADPOOL_SIZE: '4',
  });
});

t.test('with --json a benchmark prints objects alone, the last of them the summary', async (t) => {
  const bench = join(import.meta.dirname, '../../bench/sim.ts');
  const argv = [bench, '--n', '3', '--seeds', '1', '--samples', '2', '--json'];
  const { stdout } = await promisify(execFile)(process.execPath, argv);
  const rows = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  t.ok(rows.every(({ bench }) => bench === 'sim'));
  const crash = rows.find((row) => row['case'] === 'crash');
  t.match(crash, { n: 3, subject: 'bornemisza', metric: 'known_to_all', unit: 'ms', samples: 2 });
  const { summary, ok, fell_short: fellShort } = rows.at(-1) ?? {};
  t.ok(summary);
  t.ok(Array.isArray(fellShort));
  t.equal(ok, Array.isArray(fellShort) && fellShort.length === 0);
});

t.test('the router’s line about a neighbour is read; one without a hardware address is none', async (t) => {
  t.strictSame(
    parseNeighbour(
      '[2026-01-02T03:04:05.250000] 198.51.100.201 dev public lladdr 02:00:00:51:00:0b REACHABLE ',
    ),
    {
      address: '198.51.100.201',
      to: '02:00:00:51:00:0b',
      atMs: Date.parse('2026-01-02T03:04:05') + 250,
    },
  );
  for (const line of [
    '[2026-01-02T03:04:05.250000] 198.51.100.201 dev public  FAILED ',
    '[2026-01-02T03:04:05.250000] 192.0.2.10 dev clients lladdr 02:00:00:51:00:0b REACHABLE ',
    'anything else',
  ])
    t.equal(parseNeighbour(line), undefined, line);
});

t.test('BIRD is let announce what Monit keeps beside what the daemon does', async (t) => {
  const { '/etc/bird/bird.conf': file } = hostFiles({
    labId: 'a',
    name: 'app1',
    index: 0,
    carriesApp: true,
    names: [],
    floatingAddresses: ['203.0.113.10'],
    bfd: true,
  });
  if (file === undefined || typeof file === 'string') throw new Error('no bird.conf');
  const text = withMonit(String(file.content));
  t.match(text, '[ 203.0.113.10/32, 203.0.113.11/32 ] then accept');
  t.match(text, 'protocol direct monit');
});
