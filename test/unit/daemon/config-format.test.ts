import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import t from 'tap';
import { configText } from '../../../src/cli/setup/config-text.ts';
import { migrateConfig } from '../../../src/cli/setup/migrate.ts';
import { CONFIG_FORMAT, formatOf, MIGRATIONS, migrated } from '../../../src/daemon/config/format.ts';
import { parseConfig, pathsFor } from '../../../src/daemon/config/config.ts';

/** As a file looked before it named its format, with what an operator adds. */
const OLD = `# Mine, and this comment stays.

# So does this one.
[node]
cluster = "shop" # and this
host = "db1"

[network]
private_address = "10.0.0.21"
private_network = "10.0.0.0/24"
private_device = "eth1"

[couchdb]
n = 2
`;

async function written(root: string, text: string): Promise<string> {
  const { config } = pathsFor('db', root);
  await mkdir(dirname(config), { recursive: true });
  await writeFile(config, text, { mode: 0o640 });
  return config;
}

t.test(
  'an old file comes to the newest format with every line of its owner, and means the same',
  async (t) => {
    const { text, changes } = migrated(OLD);
    t.equal(formatOf(OLD), 0);
    t.equal(formatOf(text), CONFIG_FORMAT);
    t.equal(changes.length, CONFIG_FORMAT);
    const lines = text.split('\n');
    t.same(
      OLD.split('\n').filter((line) => !lines.includes(line)),
      [],
    );
    const before = parseConfig(OLD, 'db', 'db.toml');
    t.same({ ...parseConfig(text, 'db', 'db.toml'), format: 0 }, before);
    t.equal(migrated(text).text, text, 'twice does nothing');
  },
);

t.test('what init writes is of the newest format', async (t) => {
  const text = configText({
    role: 'db',
    cluster: 'shop',
    host: 'db1',
    privateAddress: '10.0.0.21',
    privateNetwork: '10.0.0.0/24',
    privateDevice: 'eth1',
    publicDevice: undefined,
    certificate: undefined,
    domain: undefined,
    dns: undefined,
    publicAddresses: [],
    floatingMode: 'off',
    floatingAddresses: [],
    couchdbCopies: undefined,
    couchdbRanges: undefined,
  });
  t.equal(formatOf(text), CONFIG_FORMAT);
  t.equal(parseConfig(text, 'db', 'db.toml').format, CONFIG_FORMAT);
});

t.test('several steps are taken in order, and the number rises with each', async (t) => {
  const steps = [
    ...MIGRATIONS,
    {
      to: CONFIG_FORMAT + 1,
      what: 'n is called copies',
      apply: (text: string) => text.replace(/^n = /m, 'copies = '),
    },
  ];
  const { text, changes } = migrated(OLD, steps);
  t.equal(formatOf(text), CONFIG_FORMAT + 1);
  t.match(text, /^copies = 2$/m);
  t.equal(changes.length, CONFIG_FORMAT + 1);
  t.same(migrated(migrated(OLD).text, steps).changes, ['n is called copies']);
  for (const [at, { to }] of MIGRATIONS.entries()) t.equal(to, at + 1, 'without a gap');
});

t.test('the file from before is kept, mode and all, and a second run changes nothing', async (t) => {
  const root = t.testdir();
  const file = await written(root, OLD);
  const done = await migrateConfig('db', pathsFor('db', root));
  t.match(done, { from: 0, to: CONFIG_FORMAT, backup: `${file}.format-0` });
  t.equal(await readFile(`${file}.format-0`, 'utf8'), OLD);
  t.equal(await readFile(file, 'utf8'), migrated(OLD).text);
  t.equal((await stat(file)).mode & 0o777, 0o640);
  const { ino } = await stat(file);
  t.match(await migrateConfig('db', pathsFor('db', root)), { backup: '', changes: [] });
  t.equal((await stat(file)).ino, ino);
  t.equal(await migrateConfig('app', pathsFor('app', root)), undefined, 'a role that is not set up');
});

t.test('after a downgrade the file from before is put back, and the later one kept', async (t) => {
  const root = t.testdir();
  const later = migrated(OLD)
    .text.replace(/^format = \d+/m, 'format = 99')
    .replace('n = 2', 'copies = 2');
  const file = await written(root, later);
  await t.rejects(migrateConfig('db', pathsFor('db', root)), { code: 'config-too-new' });
  t.equal(await readFile(file, 'utf8'), later, 'untouched');
  await writeFile(`${file}.format-0`, OLD);
  await writeFile(`${file}.format-100`, 'of another later version');
  await migrateConfig('db', pathsFor('db', root));
  t.equal(await readFile(file, 'utf8'), migrated(OLD).text);
  t.equal(await readFile(`${file}.format-99`, 'utf8'), later);
});

t.test('a file that is not valid is left as it is', async (t) => {
  for (const text of ['[node\n', OLD.replace('host', 'hots')]) {
    const root = t.testdir();
    const file = await written(root, text);
    await t.rejects(migrateConfig('db', pathsFor('db', root)), { code: 'config-invalid' });
    t.equal(await readFile(file, 'utf8'), text);
    t.same(await readdir(dirname(file)), ['db.toml']);
  }
});

t.test('a daemon that meets a later format says what to do', async (t) => {
  const text = migrated(OLD).text.replace(/^format = \d+/m, 'format = 99');
  t.throws(() => parseConfig(text, 'db', 'db.toml'), { code: 'config-invalid', message: /config migrate/ });
});
