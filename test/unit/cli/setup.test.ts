import { cp, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { DROP_IN, DROP_IN_TEXT } from '../../../src/cli/setup/layer2.ts';
import { pathsFor } from '../../../src/daemon/config/config.ts';
import { parseConfig } from '../../../src/daemon/config/config.ts';
import { peerIdOf } from '../../../src/daemon/identity/keys/node-key.ts';
import { stateOf } from '../../../src/daemon/identity/state.ts';
import { createToken, formatToken } from '../../../src/daemon/identity/admission/tokens.ts';
import { fakeHost, runCli } from './captured-io.ts';
import { FakeDaemon, status } from './fake-daemon.ts';
import { place } from './place.ts';

const read = (root: string, path: string): Promise<string> => readFile(join(root, path), 'utf8');
const init = (root: string, ...more: string[]) =>
  runCli(['init', '--role', 'app', '--root', root, ...more], { host: fakeHost({}), terminal: true });

function tokenFor(role: 'app' | 'db', cluster = 'shop-example', ttlMs = 3_600_000): string {
  return formatToken(
    createToken({
      cluster,
      // Port 9 (discard) of this host: nobody listens.
      issuer: { address: '127.0.0.1', port: 9, peerId: peerIdOf(new Uint8Array(32).fill(7)) },
      rootFingerprint: 'ab'.repeat(32),
      role,
      expiresAtMs: Date.now() + ttlMs,
    }),
  );
}

/** One cluster is founded for all tests (three RSA keys take a while); each that needs one works on a copy. */
let founded: { readonly root: string; readonly first: Awaited<ReturnType<typeof init>> };
t.before(async () => {
  const root = await place(t);
  founded = { root, first: await init(root) };
});

async function foundedPlace(test: Parameters<typeof place>[0]): Promise<string> {
  const root = await place(test);
  await cp(founded.root, root, { recursive: true });
  return root;
}

t.test('init finds everything out, prints what it does, and prints the next step', async (t) => {
  const { root, first } = founded;
  const { code, out, err } = first;
  t.equal(err, '');
  t.equal(code, 0);
  t.match(out, /node +app1\/app of cluster shop-example/);
  t.match(out, /private +10\.0\.0\.11 on eth1 \(10\.0\.0\.0\/24\)/);
  t.match(out, /public +eth0/);
  t.match(out, /site +https:\/\/203\.0\.113\.7\/\n/);
  t.match(out, 'This will:');
  t.match(out, 'systemctl enable --now bornemisza@app');
  t.match(out, 'bornemisza token create --role');
  t.match(out, 'sudo bornemisza join -');
  t.match(out, /The recovery bundle is in \S+\.txt\.\n[^]*\nPassphrase: (\w{5}-){5}\w{5}\n$/);

  const paths = pathsFor('app', root);
  t.match(parseConfig(await readFile(paths.config, 'utf8'), 'app', 'x'), {
    node: { cluster: 'shop-example', host: 'app1' },
    network: {
      private_address: '10.0.0.11',
      private_network: '10.0.0.0/24',
      private_device: 'eth1',
      public_device: 'eth0',
    },
    floating: { mode: 'off' },
  });
  t.equal((await stat(paths.config)).mode & 0o777, 0o640);
  t.equal((await stat(paths.state)).mode & 0o777, 0o700);
  t.equal((await stat(paths.haproxyFiles)).mode & 0o7777, 0o2750);
  t.equal(await stateOf(paths.state), 'complete');
});

t.test('a second init is refused and changes nothing', async (t) => {
  const root = await foundedPlace(t);
  const before = await read(root, 'var/lib/bornemisza/app/cluster.json');
  const again = await init(root);
  t.equal(again.code, 1);
  t.match(again.err, 'this host is app1/app of cluster shop-example already');
  t.match(again.err, 'systemctl enable --now bornemisza@app');
  t.equal(await read(root, 'var/lib/bornemisza/app/cluster.json'), before);
});

t.test('--reset sets the old identity aside, whole', async (t) => {
  const root = await foundedPlace(t);
  const before = await read(root, 'var/lib/bornemisza/app/node.key');
  const { code, out } = await init(root, '--reset');
  t.equal(code, 0);
  const old = (await readdir(pathsFor('app', root).state)).find((name) => name.startsWith('old-')) ?? '';
  t.match(out, old);
  t.equal(await read(root, `var/lib/bornemisza/app/${old}/node.key`), before);
  t.not(await read(root, 'var/lib/bornemisza/app/node.key'), before);
});

t.test('init continues after an interrupted run, and keeps an existing configuration', async (t) => {
  const root = await foundedPlace(t);
  const paths = pathsFor('app', root);
  await rm(join(paths.state, 'cluster.json'));
  await writeFile(join(paths.state, 'unfinished.json'), JSON.stringify({ version: 1, what: 'init' }));
  const edited = `# mine\n${await readFile(paths.config, 'utf8')}`;
  await writeFile(paths.config, edited);
  const { code, out } = await init(root);
  t.equal(code, 0);
  t.match(out, 'it exists and is kept');
  t.equal(await readFile(paths.config, 'utf8'), edited);
  t.equal(await stateOf(paths.state), 'complete');
});

t.test('a configuration that is there is never silently contradicted, nor trusted blindly', async (t) => {
  const root = await foundedPlace(t);
  const paths = pathsFor('app', root);
  const other = await init(root, '--cluster', 'else');
  t.equal(other.code, 1);
  t.match(other.err, /app\.toml says cluster "shop-example", this command "else"/);

  const moved = await runCli(['init', '--role', 'app', '--root', root], {
    host: fakeHost({ devices: { eth1: ['10.0.0.99'] } }),
  });
  t.equal(moved.code, 1);
  t.match(moved.err, '10.0.0.11 is not on device eth1; found: 10.0.0.99 on eth1');

  await writeFile(paths.config, '[nod]\n');
  const broken = await init(root);
  t.equal(broken.code, 1);
  t.match(broken.err, 'unknown key "nod"; did you mean "node"?');
});

t.test('nothing is written when something cannot be found out', async (t) => {
  const root = await place(t);
  const table: readonly (readonly [Parameters<typeof fakeHost>[0], RegExp])[] = [
    [{ devices: { eth0: ['203.0.113.7'] } }, /no private address/],
    [
      { devices: { eth1: ['10.0.0.1'], eth2: ['10.9.0.1'] } },
      /2 private addresses: 10\.0\.0\.1 on eth1, 10\.9\.0\.1 on eth2/,
    ],
    [{ hostname: 'my_host.shop' }, /is no valid host name/],
    [{ hostname: 'app1' }, /has no domain to name the cluster after/],
  ];
  for (const [facts, message] of table) {
    const { code, err } = await runCli(['init', '--role', 'app', '--root', root], { host: fakeHost(facts) });
    t.equal(code, 1);
    t.match(err, message);
  }
  t.same(await readdir(root), []);
});

t.test('values that would break out of a file are refused', async (t) => {
  const root = await place(t);
  for (const [flag, value] of [
    ['--certificate', '/etc/x"\ny.pem'],
    ['--certificate', 'site.pem'],
    ['--host', 'a"b'],
    ['--cluster', 'a\nb'],
    ['--floating-ip', '203.0.113.10; drop'],
  ] as const) {
    const { code, err } = await init(root, flag, value);
    t.not(code, 0, `${flag} ${JSON.stringify(value)}`);
    t.notMatch(err, 'unexpected');
  }
  t.same(await readdir(root), []);
});

t.test('without BGP the daemon gets its right to ARP, once, and BIRD is left alone', async (t) => {
  const root = await place(t);
  const layer2 = ['--floating-ip', '203.0.113.10', '--floating-mode', 'layer2'];
  const bgp = ['--bgp-neighbor', '169.254.169.254', '--bgp-as', '64515', '--bgp-local-as', '65001'];
  const refused = await init(root, ...layer2, ...bgp);
  t.equal(refused.code, 2);
  t.match(refused.err, /layer2 does not use BGP/);
  for (const more of [['--bgp-provider', 'vultr'], ['--bgp-hold-time', '9'], ['--bgp-bfd']])
    t.match(
      await init(root, ...layer2, ...more),
      { code: 2, err: /layer2 does not use BGP/ },
      more.join(' '),
    );
  t.same(await readdir(root), []);

  const { code, out, err } = await init(root, ...layer2);
  t.equal(code, 0, err);
  t.match(out, /floating +203\.0\.113\.10 by layer2/);
  t.match(out, /layer2\.conf: the daemon may send ARP \(CAP_NET_RAW\)/);
  t.notMatch(out, 'bird.conf');
  t.equal(await readFile(`${root}${DROP_IN}`, 'utf8'), DROP_IN_TEXT);
  const byHand = await readFile(new URL('../../../docs/install.md', import.meta.url), 'utf8');
  const settings = DROP_IN_TEXT.replace(/^#.*\n/, '')
    .replaceAll(/^/gm, '    ')
    .trimEnd();
  t.ok(byHand.includes(settings), 'the document says the same');
  t.match(parseConfig(await read(root, 'etc/bornemisza/app.toml'), 'app', 'x'), {
    network: { public_device: 'eth0' },
    floating: { mode: 'layer2', addresses: ['203.0.113.10'] },
  });
  t.match((await init(root, '--reset', ...layer2)).out, /layer2\.conf.*\(it exists\)/);
});

t.test('what a node needs for BGP is in app.toml and in bird.conf, and once written it counts', async (t) => {
  const root = await place(t);
  const floating = [
    '--floating-ip',
    '203.0.113.10',
    '--bgp-provider',
    'vultr',
    '--bgp-local-as',
    '4288000123',
  ];
  const { code, err } = await init(root, ...floating, '--bgp-hold-time', '30', '--bgp-bfd');
  t.equal(code, 0, err);
  t.match(parseConfig(await read(root, 'etc/bornemisza/app.toml'), 'app', 'x'), {
    floating: { mode: 'bgp', hold_time_s: 30, bfd: true },
  });
  t.match(await read(root, 'etc/bird/bird.conf'), /as 64515;\n\tmultihop 2;\n\thold time 30;[^]*bfd yes;/);
  const again = await init(root, '--reset', ...floating, '--bgp-hold-time', '9');
  t.not(again.code, 0);
  t.match(again.err, /says hold time "30", this command "9"/);
  const bad = await place(t);
  t.match(await init(bad, ...floating, '--bgp-hold-time', '2'), { code: 2, err: /hold_time_s/ });
  t.match(await init(bad, '--bgp-provider', 'nobody'), {
    code: 2,
    err: /vultr, vultr-bare-metal, ingenuity/,
  });
});

t.test('IPv6 floating IPs: the site is reached by them, and they are written in one form', async (t) => {
  const bgp = ['--bgp-provider', 'vultr', '--bgp-local-as', '65001'];
  for (const [given, addresses, site] of [
    ['2001:DB8:0::10', ['2001:db8::10'], /site +https:\/\/\[2001:db8::10\]\//],
    ['2001:db8::10,203.0.113.10', ['2001:db8::10', '203.0.113.10'], /site +https:\/\/203\.0\.113\.10\//],
  ] as const) {
    const root = await place(t);
    const { code, out, err } = await init(root, '--floating-ip', given, ...bgp);
    t.equal(code, 0, err);
    t.match(out, site);
    t.match(parseConfig(await read(root, 'etc/bornemisza/app.toml'), 'app', 'x'), {
      floating: { addresses },
    });
    t.notMatch((await init(root, '--reset', '--floating-ip', given, ...bgp)).err, 'config-differs');
  }
  const bad = await place(t);
  for (const [address, more, said] of [
    ['fe80::1', bgp, /"fe80::1" is not an IPv4 or IPv6 address that a provider can route/],
    ['2001:db8::10', ['--floating-mode', 'layer2'], /must be IPv4 with mode "layer2"/],
    [
      '2001:db8::10',
      ['--bgp-provider', 'vultr-bare-metal', '--bgp-local-as', '1'],
      /no IPv6 neighbour is known/,
    ],
  ] as const)
    t.match(await init(bad, '--floating-ip', address, ...more), { code: 2, err: said }, said.source);
});

t.test('setting up for real takes root', async (t) => {
  for (const argv of [
    ['init', '--role', 'app'],
    ['join', '-'],
  ]) {
    const { code, err } = await runCli(argv, { host: fakeHost({ uid: 1000 }), stdin: tokenFor('db') });
    t.equal(code, 4);
    t.match(err, 'sudo');
  }
});

t.test('a token on the command line is neither used nor printed', async (t) => {
  const root = await place(t);
  const token = tokenFor('app');
  const { code, out, err } = await runCli(['join', token, '--root', root], { host: fakeHost({}) });
  t.equal(code, 2);
  t.match(err, 'a token on the command line can be read by every user');
  t.match(err, 'sudo bornemisza join -');
  t.notMatch(out + err, token.slice(-20));
  t.same(await readdir(join(root, 'var/lib/bornemisza')).catch(() => []), [], 'nothing was made');
});

t.test('init is refused while the daemon runs', async (t) => {
  const root = await place(t);
  const fake = await new FakeDaemon(root, 'app', { 'GET /v1/status': { json: status() } }).start();
  t.teardown(() => fake.stop());
  const { code, err } = await init(root);
  t.equal(code, 1);
  t.match(err, 'bornemisza@app runs on this host');
});

t.test(
  'the recovery bundle goes to a file where nobody reads along, and founds the cluster again',
  async (t) => {
    const root = await place(t, { passphrase: 'correct horse battery staple\n' });
    const secret = join(root, 'passphrase');
    const { code, out } = await runCli(
      ['init', '--role', 'db', '--root', root, '--json', '--passphrase-file', secret],
      { host: fakeHost({}) },
    );
    t.equal(code, 0);
    const answer = JSON.parse(out);
    t.match(answer, {
      cluster: 'shop-example',
      name: 'app1/db',
      recoveryFile: join(root, 'root/bornemisza-recovery-shop-example.txt'),
    });
    t.equal((await stat(answer.recoveryFile)).mode & 0o777, 0o600);
    const kept = await readFile(answer.recoveryFile, 'utf8');
    t.notMatch(kept, 'correct horse');
    t.notMatch(out, 'BEGIN BORNEMISZA');

    const second = await place(t);
    const recovered = await runCli(
      [
        'init',
        '--role',
        'db',
        '--root',
        second,
        '--json',
        '--passphrase-file',
        secret,
        '--recover',
        answer.recoveryFile,
      ],
      { host: fakeHost({}) },
    );
    t.equal(recovered.code, 0, recovered.err);
    t.equal(JSON.parse(recovered.out).rootFingerprint, answer.rootFingerprint);

    const alone = await runCli(['init', '--role', 'db', '--root', root, '--recover', answer.recoveryFile], {
      host: fakeHost({}),
    });
    t.equal(alone.code, 2);
    t.match(alone.err, '--recover needs --passphrase-file');
  },
);

t.test('the passphrase of the bundle is last on the screen, and then in no file', async (t) => {
  const root = await place(t);
  const bundle = join(root, 'root/bornemisza-recovery-shop-example.txt');
  const init = ['init', '--role', 'app', '--root', root];
  const devices = { eth0: ['203.0.113.11'], eth1: ['10.0.0.11'] };
  const passphraseIn = (text: string): string => /^Passphrase: ((\w{5}-){5}\w{5})$/m.exec(text)?.[1] ?? '';

  const made = await runCli(init, { host: fakeHost({ devices }), terminal: true });
  t.match(made.out, `\n  scp root@203.0.113.11:${bundle} .\nthen here:\n  rm ${bundle}\n`);
  t.match(made.out, /Next:[^]*\n\nPassphrase: (\w{5}-){5}\w{5}\n$/, 'nothing follows it');
  t.notMatch(made.out, 'BEGIN BORNEMISZA');
  t.equal((await stat(bundle)).mode & 0o777, 0o600);
  const kept = await readFile(bundle, 'utf8');
  t.match(kept, /\nPassphrase: \(shown on the terminal\)\n\n-----BEGIN BORNEMISZA/);
  // Another cluster of the name, by a user of sudo, whose output goes to a log.
  const host = { ...fakeHost({ devices }), sudoUser: 'anna' };
  const other = await runCli([...init, '--reset'], { host });
  const beside =
    /The recovery bundle and its passphrase are in (\S+-[0-9a-f]{8}\.txt)\.\n/.exec(other.out)?.[1] ?? '';
  t.match(other.out, `ssh anna@203.0.113.11 sudo cat ${beside} >bornemisza-recovery-shop-example-`);
  t.notMatch(other.out, 'Passphrase: ');
  t.match(passphraseIn(await readFile(beside, 'utf8')), /\w/);
  t.equal(await readFile(bundle, 'utf8'), kept, 'the bundle from before is kept');
});

t.test('join reads the token from standard input or a file', async (t) => {
  const text = tokenFor('db');
  const root = await place(t, { token: `${text}\n` });
  // The issuer is not there: that the join gets so far shows that the token was read.
  const host = fakeHost({ devices: { lo: ['127.0.0.1'] }, hostname: 'db1' });
  const options = ['--private-address', '127.0.0.1', '--root', root];
  for (const [argv, stdin] of [
    [['join', '-'], text],
    [['join', '--token-file', join(root, 'token')], ''],
  ] as const) {
    const { code, out, err } = await runCli([...argv, ...options], { host, stdin });
    t.equal(code, 1);
    t.match(out, /node +db1\/db of cluster shop-example/);
    t.match(err, /127\.0\.0\.1/);
    t.match(err, 'next:');
    t.notMatch(out + err, text);
  }
});

t.test('a bad token ends in one sentence and writes nothing', async (t) => {
  const root = await place(t);
  const good = tokenFor('db');
  const table: readonly (readonly [string[], string, number, RegExp])[] = [
    [['-'], '', 2, /standard input held no token/],
    [['-'], 'x'.repeat(9000), 2, /holds more than a token/],
    [['-'], good.slice(0, -4), 1, /cut or mistyped/],
    [['-'], 'hello', 1, /not a join token/],
    [[good], '', 2, /can be read by every user/],
    [[good, '--token-file', '/x'], '', 2, /exclude each other/],
    [[], '', 2, /no token was given/],
    [['-', '--token-file', '/x'], good, 2, /exclude each other/],
    [['--token-file', '/nowhere/x'], '', 1, /cannot read \/nowhere\/x: ENOENT/],
    [['-', '--role', 'app'], good, 2, /the token admits role db, not app/],
  ];
  for (const [argv, stdin, exit, message] of table) {
    const { code, err } = await runCli(['join', ...argv, '--root', root], { host: fakeHost({}), stdin });
    t.equal(code, exit, JSON.stringify(argv));
    t.match(err, message);
  }
  t.same(await readdir(root), []);
});

t.test('an expired token is reported, and the join works with a new one', async (t) => {
  const root = await place(t);
  const host = fakeHost({ devices: {}, hostname: 'db1' });
  const stdin = tokenFor('db', 'shop-example', -3_600_000);
  const { code, err } = await runCli(['join', '-', '--private-address', '127.0.0.1', '--root', root], {
    host,
    stdin,
  });
  t.equal(code, 1);
  t.match(err, 'The token expired at');
  t.match(err, 'next: Create a new one');
  t.equal(await stateOf(pathsFor('db', root).state), 'unfinished');
});

t.test('a node that is a member already is not joined again', async (t) => {
  const root = await foundedPlace(t);
  const { code, err } = await runCli(['join', '-', '--root', root], {
    host: fakeHost({}),
    stdin: tokenFor('app'),
  });
  t.equal(code, 1);
  t.match(err, 'this host is already app1/app of a cluster');
});

t.test('a disk that cannot be written ends in one sentence', async (t) => {
  const root = await place(t);
  // A file where a directory must be: fails for root too.
  await mkdir(join(root, 'var/lib'), { recursive: true });
  await writeFile(join(root, 'var/lib/bornemisza'), '');
  const { code, err } = await init(root);
  t.equal(code, 1);
  t.match(err, /^bornemisza: .*\n {2}next: .*\n$/);
});
