import { lstat, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { Host } from '../../../src/cli/io.ts';
import { pathsFor } from '../../../src/daemon/config/config.ts';
import { createToken, formatToken } from '../../../src/daemon/identity/admission/tokens.ts';
import { peerIdOf } from '../../../src/daemon/identity/keys/node-key.ts';
import { fakeHost, runCli } from './captured-io.ts';
import { place } from './place.ts';

/** Everything under a directory: name, kind, mode, owner, time of change and content. */
async function tree(root: string): Promise<string[]> {
  const names = (await readdir(root, { recursive: true })).sort();
  return await Promise.all(
    ['.', ...names].map(async (name) => {
      const path = join(root, name);
      const { mode, uid, gid, mtimeNs, ctimeNs } = await lstat(path, { bigint: true });
      const text = (mode & 0o170000n) === 0o100000n ? await readFile(path, 'utf8') : '';
      return [name, mode.toString(8), uid, gid, mtimeNs, ctimeNs, text].join(' ');
    }),
  );
}

/** A host that keeps what was run on it. */
function watched(): { readonly host: Host; readonly ran: string[] } {
  const ran: string[] = [];
  const host = fakeHost({});
  const run: Host['run'] = (program, args) => {
    ran.push(`${program} ${args.join(' ')}`);
    return host.run(program, args);
  };
  return { host: { ...host, run }, ran };
}

const token = (ttlMs = 3_600_000) =>
  formatToken(
    createToken({
      cluster: 'shop-example',
      // Port 9 (discard) of this host: nobody listens, and nobody is asked.
      issuer: { address: '127.0.0.1', port: 9, peerId: peerIdOf(new Uint8Array(32).fill(7)) },
      rootFingerprint: 'ab'.repeat(32),
      role: 'db',
      expiresAtMs: Date.now() + ttlMs,
    }),
  );

const FLOATING = ['--floating-ip', '203.0.113.10'];
const BGP = ['--bgp-neighbor', '169.254.169.254', '--bgp-as', '64515', '--bgp-local-as', '65001'];

t.test('a dry run shows all that would be made, and writes nothing', async (t) => {
  const cases: readonly (readonly [string[], readonly RegExp[]])[] = [
    [
      ['init', '--role', 'app'],
      [/write .*app\.toml/, /create the cluster shop-example/, /recovery bundle/],
    ],
    [
      ['init', '--role', 'db', '--start'],
      [/db\.toml/, /systemctl enable --now bornemisza@db/],
    ],
    [['init', '--role', 'app', ...FLOATING, ...BGP], [/write .*bird\.conf: BGP with 169\.254\.169\.254/]],
    [['init', '--role', 'app', ...FLOATING, '--floating-mode', 'layer2'], [/layer2\.conf/]],
    [['init', '--role', 'app', '--recovery-file', '/x/bundle'], [/recovery bundle to \/x\/bundle/]],
    [
      ['join', '-'],
      [/join cluster shop-example through 127\.0\.0\.1/, /token +of 127.*ends in (59 min|1 h)/],
    ],
    [['join', '-', '--start', '--wait'], [/systemctl enable --now bornemisza@db/]],
  ];
  for (const [argv, wanted] of cases) {
    const root = await place(t);
    const before = await tree(root);
    const { host, ran } = watched();
    const given = { host, stdin: token() };
    const { code, out, err } = await runCli([...argv, '--dry-run', '--root', root], given);
    const what = argv.join(' ');
    t.equal(code, 0, `${what}: ${err}`);
    t.same(await tree(root), before, what);
    t.same(
      ran.filter((line) => !/^ip .*(addr|route)/.test(line)),
      [],
      'only the network is looked at',
    );
    for (const text of [/^Found:\n/, /\nThis would:\n/, /private_address = "10\.0\.0\.11"/, ...wanted])
      t.match(out, text, what);
    t.match(out, /Nothing was written\. [^\n]*\n$/);
    const json = JSON.parse((await runCli([...argv, '--dry-run', '--json', '--root', root], given)).out);
    t.match(json, { dryRun: true, found: { private: /10\.0\.0\.11/ }, configuration: { file: /\.toml$/ } });
    t.same(await tree(root), before, `${what} --json`);
  }
});

t.test('what a dry run shows is what the same command writes, and it leaves what is there', async (t) => {
  const root = await place(t);
  const init = (...more: string[]) =>
    runCli(['init', '--role', 'app', '--root', root, ...more], { host: fakeHost({}) });
  const shown = JSON.parse((await init('--dry-run', '--json')).out);
  t.equal((await init('--json')).code, 0);
  t.equal(await readFile(pathsFor('app', root).config, 'utf8'), shown.configuration.text);
  const before = await tree(root);
  // What the command refuses, its dry run refuses.
  t.match(await init('--dry-run'), { code: 1, err: /of cluster shop-example already/ });
  t.match(await init('--dry-run', '--cluster', 'else'), { code: 1, err: /says cluster "shop-example"/ });
  const reset = await init('--dry-run', '--reset');
  t.match(reset, { code: 0, out: /app\.toml \(it exists and is kept\)[^]*move the identity in .* aside/ });
  t.same(await tree(root), before);
});

t.test(
  'a recovery bundle that does not fit is refused before anything is written or set aside',
  async (t) => {
    const place1 = await place(t, {
      pass: 'correct horse battery staple\n',
      wrong: 'another horse altogether\n',
    });
    await writeFile(join(place1, 'short'), 'short\n');
    await writeFile(join(place1, 'film'), 'no bundle at all\n');
    const bundle = join(place1, 'bundle');
    const init = (root: string, pass: string, ...more: string[]) =>
      runCli(
        ['init', '--role', 'app', '--root', root, '--json', '--passphrase-file', join(place1, pass), ...more],
        { host: fakeHost({}) },
      );
    t.equal((await init(place1, 'pass', '--cluster', 'shop', '--recovery-file', bundle)).code, 0);
    const fresh = await place(t);
    const recover = ['--recover', bundle];
    const cases: readonly (readonly [string, string[], string])[] = [
      ['pass', [...recover, '--cluster', 'else'], 'recovery-other-cluster'],
      ['wrong', recover, 'recovery-passphrase-wrong'],
      ['pass', ['--recover', join(place1, 'film')], 'recovery-malformed'],
      ['short', [], 'passphrase-short'],
      ['short', recover, 'recovery-passphrase-wrong'],
    ];
    for (const [pass, more, code] of cases) {
      for (const root of [fresh, place1]) {
        const before = await tree(root);
        const refused = await init(root, pass, ...more, '--reset');
        t.match(JSON.parse(refused.err), { error: { code } }, code);
        t.same(await tree(root), before, `${code} leaves all as it was`);
      }
    }
    // Without --cluster the bundle says which; the host's own domain is another.
    t.match(await init(fresh, 'pass', ...recover), { code: 0, out: /"cluster": "shop"/ });
  },
);

t.test('a dry run with an expired token reports that', async (t) => {
  const root = await place(t);
  const stdin = token(-300_000);
  const { code, out } = await runCli(['join', '-', '--dry-run', '--root', root], {
    host: fakeHost({}),
    stdin,
  });
  t.match(out, /token +of 127\.0\.0\.1:9, ended 5 min ago/);
  t.notMatch(out, stdin.slice(20, 60), 'and shows no part of it');
  t.equal(code, 0);
});
