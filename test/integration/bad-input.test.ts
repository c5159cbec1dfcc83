import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFile,
  chmod,
  cp,
  mkdir,
  mkdtemp,
  readFile,
  rm,
  stat,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { bundleProduct } from '../../scripts/bundle.ts';
import type { StatusAnswer } from '../../src/daemon/control/api.ts';
import { slowness } from '../support/patience.ts';
import { until } from '../support/until.ts';
import { spawnWithUs } from '../support/with-us.ts';

/** What a daemon makes of bad input at its start and while it runs: one sentence, and the last good state goes on. */
/** An address of this process alone, so that the test can run twice at once. */
const address = `127.${128 + (process.pid % 64)}.${(process.pid >> 6) & 255}.1`;
const LIMIT_MS = 30_000;
const EXIT_CONFIG = 78;

let program: string;
let root: string;
/** State and configuration as `init` made them, to go back to after each damage. */
let good: string;

const config = (): string => join(root, 'etc/bornemisza/app.toml');
const state = (name: string): string => join(root, 'var/lib/bornemisza/app', name);

interface Running {
  readonly child: ChildProcess;
  output: string;
}

function start(...argv: readonly string[]): Running {
  const child = spawnWithUs(process.execPath, [program, ...argv], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env['PATH'] },
  });
  const running: Running = { child, output: '' };
  for (const stream of [child.stdout, child.stderr])
    stream?.setEncoding('utf8').on('data', (text: string) => (running.output += text));
  t.teardown(() => void child.kill('SIGKILL'));
  return running;
}

async function ended({ child }: Running): Promise<number | null> {
  const timer = setTimeout(() => child.kill('SIGKILL'), LIMIT_MS * slowness());
  if (child.exitCode === null) await once(child, 'close');
  clearTimeout(timer);
  return child.exitCode;
}

async function bornemisza(...argv: readonly string[]): Promise<{ code: number | null; output: string }> {
  const running = start(...argv, '--root', root);
  return { code: await ended(running), output: running.output };
}

const daemon = (): Running => start('daemon', '--role', 'app', '--root', root);

async function up(): Promise<Running> {
  const running = daemon();
  await until(() => running.output.includes('started ') || running.child.exitCode !== null, {
    deadlineMs: LIMIT_MS,
    what: 'the daemon to have started',
  });
  if (running.child.exitCode !== null) throw new Error(running.output);
  return running;
}

async function down(running: Running): Promise<void> {
  running.child.kill('SIGTERM');
  t.equal(await ended(running), 0, running.output);
  t.notMatch(running.output, 'a bug');
}

const status = async (): Promise<StatusAnswer> => {
  const { code, output } = await bornemisza('status', '--json');
  t.equal(code, 0, output);
  return JSON.parse(output) as StatusAnswer;
};

/** Goes back to what `init` made. */
async function mend(): Promise<void> {
  for (const part of ['etc', 'var']) {
    await rm(join(root, part), { recursive: true });
    await cp(join(good, part), join(root, part), { recursive: true, preserveTimestamps: true });
  }
}

const initialise = (): ReturnType<typeof bornemisza> =>
  bornemisza('init', '--role', 'app', '--cluster', 'shop', '--host', 'app1', '--private-address', address);

async function cutInHalf(path: string): Promise<void> {
  await truncate(path, Math.floor((await stat(path)).size / 2));
}

t.before(async () => {
  const directory = await mkdtemp(join(tmpdir(), 'bm-bad-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  program = join(directory, 'bornemisza.mjs');
  root = join(directory, 'root');
  good = join(directory, 'good');
  await bundleProduct(program);
  const made = await initialise();
  t.equal(made.code, 0, made.output);
  // The files that a daemon makes by itself are there after its first run.
  await down(await up());
  await cp(root, good, { recursive: true });
});

t.test(
  'what only a person can mend ends with code 78 and one line, and starts once it is mended',
  async (t) => {
    const edit = (from: string | RegExp, to: string) => async (): Promise<void> =>
      writeFile(config(), (await readFile(config(), 'utf8')).replace(from, to));
    const cases: readonly (readonly [what: string, damage: () => Promise<unknown>, said: RegExp])[] = [
      [
        'an unknown key',
        () => appendFile(config(), '\n[helth]\nrise = 2\n'),
        new RegExp(
          /^\S+app\.toml: unknown key "helth"; did you mean "health"\?/.source +
            / -- correct the file, then run `bornemisza config check` code=config-invalid\n$/.source,
        ),
      ],
      [
        'no configuration',
        () => rm(config()),
        /app\.toml does not exist -- run `bornemisza init .* code=config-missing\n$/,
      ],
      [
        'half a configuration',
        async () => writeFile(config(), (await readFile(config(), 'utf8')).slice(0, 40)),
        /app\.toml.* -- correct the file.* code=config-invalid\n$/,
      ],
      [
        'the address of another machine',
        edit(address, '10.99.99.99'),
        new RegExp(
          /says private_address 10\.99\.99\.99, but app1\/app was admitted with 127\.\S+/.source +
            / -- correct .* code=config-identity-differs\n$/.source,
        ),
      ],
      [
        'a host name with a newline',
        edit('"app1"', '"app1\\nroot"'),
        /node\.host: must be letters a-z.* code=config-invalid\n$/,
      ],
      ...['node.key', 'tls.key', 'chain.pem', 'roots.pem', 'cluster.json'].map(
        (name) =>
          [
            `half of ${name}`,
            () => cutInHalf(state(name)),
            new RegExp(
              `${name.replace('.', '\\.')} is damaged or incomplete\\. -- Restore it from a backup, .* ` +
                `code=state-file-damaged\n$`,
            ),
          ] as const,
      ),
    ];
    for (const [what, damage, said] of cases) {
      await damage();
      const refused = daemon();
      t.equal(await ended(refused), EXIT_CONFIG, `${what}: ${refused.output}`);
      t.match(refused.output, said, what);
      t.equal(refused.output.trim().split('\n').length, 1, `${what}: one line`);
      await mend();
    }
    await down(await up());
  },
);

t.test('a port in use is named, and the next start succeeds once it is free', async (t) => {
  const other = createServer().listen(4101, address);
  await once(other, 'listening');
  const refused = daemon();
  t.equal(await ended(refused), 1, 'systemd tries this one again');
  t.match(
    refused.output,
    new RegExp(
      `another program listens on ${address}:4101 -- find it with .ss -ltnp.* code=address-in-use\n$`,
    ),
  );
  t.notMatch(refused.output, 'report this');
  other.close();
  await once(other, 'close');
  await down(await up());
});

t.test('damaged optional files are reported, moved aside and written again', async (t) => {
  const cases: readonly (readonly [name: string, said: RegExp])[] = [
    [
      'members.snapshot',
      /members\.snapshot: [\w ]+; starting without it -- wait: the other members send their records again/,
    ],
    [
      'local.json',
      /local\.json was damaged and is kept as \S+local\.json\.damaged; maintenance and guards are reset -- /,
    ],
    ['roster.json', /roster\.json was damaged or missing; the generation before it is used\. -- Wait: /],
    [
      'audit.jsonl',
      /audit trail: 1 lines of \S+audit\.jsonl are not audit entries and were skipped -- only the record/,
    ],
  ];
  t.teardown(mend);
  for (const [name] of cases) await cutInHalf(state(name));
  const running = await up();
  for (const [name, said] of cases) t.match(running.output, said, name);
  t.match(await status(), { name: 'app1/app', phase: 'running', maintenance: false });
  await down(running);
  const again = await up();
  t.notMatch(again.output, /starting without it|was damaged|generation before/, 'told once');
  await down(again);
});

t.test('while it runs, nothing bad takes the place of what is good', async (t) => {
  t.teardown(mend);
  const running = await up();
  const hangUp = async (said: RegExp): Promise<void> => {
    const from = running.output.length;
    running.child.kill('SIGHUP');
    await until(() => said.test(running.output.slice(from)), { deadlineMs: LIMIT_MS, what: String(said) });
    t.match(await status(), { name: 'app1/app', phase: 'running' });
  };
  const before = await readFile(config(), 'utf8');
  await appendFile(config(), '\n[couchdb]\nhttp_prt = 8081\n');
  await hangUp(/unknown key "couchdb\.http_prt"; did you mean "http_port"\? -- correct the file/);
  const checked = await bornemisza('config', 'check');
  t.equal(checked.code, 1);
  t.match(checked.output, /unknown key "couchdb\.http_prt"/, 'the command says what the daemon said');

  await writeFile(config(), before.replace(address, '127.0.0.99'));
  await hangUp(
    /\[network\] changed, which is read only at the start -- restart the daemon: systemctl restart bornemisza@app/,
  );
  await writeFile(config(), before);

  const services = join(root, 'etc/bornemisza/services.d');
  const service = (name: string): string => `name = "${name}"\nport = 8080\npath_prefix = "/${name}"\n`;
  await writeFile(join(services, 'a.toml'), service('shop'));
  await hangUp(/the configuration was read again/);
  t.strictSame(
    (await status()).checks.map(({ name }) => name),
    ['haproxy', 'shop'],
  );
  for (const [content, said] of [
    [service('two words'), /b\.toml: name: must start with a letter/],
    [service('x\\n<0>all is well'), /b\.toml: name: must start with a letter/],
    [service('shop'), /b\.toml: name "shop" or path_prefix "\/shop" is used by another file/],
  ] as const) {
    await writeFile(join(services, 'b.toml'), content);
    await hangUp(said);
  }
  t.strictSame(
    (await status()).checks.map(({ name }) => name),
    ['haproxy', 'shop'],
    'what was good goes on',
  );
  await rm(join(services, 'b.toml'));

  // The daemon takes the rest of the configuration, unlike with a bad service.
  const snippets = join(root, 'etc/bornemisza/haproxy.d');
  await mkdir(snippets, { recursive: true });
  await writeFile(join(snippets, 'a.cfg'), 'backend a\n\nglobal\n');
  await writeFile(join(snippets, 'b.cfg'), 'backend b\n');
  await chmod(join(snippets, 'b.cfg'), 0o666);
  await hangUp(/the configuration was read again/);
  const left = (name: string, why: string) =>
    new RegExp(`${name.replace('.', '\\.')} is left out of HAProxy’s configuration: ${why}`);
  t.match((await status()).warnings, [
    { code: 'haproxy-snippet-refused', message: left('b.cfg', 'another user than root can change it') },
  ]);
  const alarms = async () => (await status()).plugins.find(({ name }) => name === 'haproxy')?.alarms ?? [];
  await until(async () => (await alarms()).length > 0, { deadlineMs: LIMIT_MS, what: 'the alarm' });
  t.match(await alarms(), [
    { code: 'haproxy-snippet-refused', message: left('a.cfg:3', 'a section "global" is not possible') },
  ]);
  const both = await bornemisza('config', 'check');
  t.equal(both.code, 1);
  t.match(both.output, left('a.cfg:3', ''));
  t.match(both.output, left('b.cfg', ''));
  await rm(snippets, { recursive: true });

  const second = daemon();
  t.equal(await ended(second), 1);
  t.match(
    second.output,
    /another daemon answers on \S+control\.sock -- stop it first.* code=already-running\n$/,
  );
  t.match(await status(), { name: 'app1/app' }, 'the first one is still to be reached');
  t.match(await initialise(), { code: 1, output: /bornemisza@app runs on this host/ });
  await down(running);
});
