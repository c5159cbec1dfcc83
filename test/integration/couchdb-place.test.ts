import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { bundleProduct } from '../../scripts/bundle.ts';
import { Cluster } from '../lab/cluster.ts';
import { until } from '../support/until.ts';

t.setTimeout(580_000);
const PLACE = '/usr/local/lib/couchdb';
const CONFIG = '/etc/bornemisza/db.toml';

interface Doctor {
  readonly checks: readonly { readonly name: string; readonly state: string; readonly detail: string }[];
}

t.test('a CouchDB outside /opt/couchdb is found by its unit, started, and joins', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'bm-place-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const bundle = join(directory, 'bornemisza.mjs');
  await bundleProduct(bundle);
  const cluster = await Cluster.create({ db: 1, floating: false, bundle });
  t.teardown(() => cluster.close());
  const host = await cluster.lab.addHost({ name: 'db2', roles: ['db'] });
  await host.must(['cp', '--archive', '/opt/couchdb', PLACE]);
  await host.must(['rm', '/opt/couchdb']);
  const unit = 'couchdb.service';
  const packaged = await host.readFile(`/usr/lib/systemd/system/${unit}`);
  await host.writeFile(`/etc/systemd/system/${unit}`, packaged.replace('/opt/couchdb', PLACE));
  await host.must(['systemctl', 'daemon-reload']);

  const db2 = await cluster.join(host, 'db');
  t.match(await host.readFile(CONFIG), `\ndirectory = "${PLACE}"\n`);
  await cluster.settled();
  t.match((await cluster.couchMembership(db2)).cluster_nodes, { length: 2 });
  const { mainPid } = await host.unit(unit);
  t.match(await host.readPlain(`/proc/${mainPid}/environ`), `COUCHDB_INI_FILES=${PLACE}/etc/default.ini`);

  const couchdb = async () => {
    const { stdout } = await host.exec(['bornemisza', 'doctor', '--role', 'db', '--json']);
    return (JSON.parse(stdout) as Doctor).checks.find(({ name }) => name === 'couchdb');
  };
  t.match(await couchdb(), { state: 'ok', detail: `CouchDB in ${PLACE}` });
  const user = '/run/systemd/system/couchdb.service.d/user.conf';
  await host.writeFile(user, '[Service]\nUser=nobody\n');
  await host.must(['systemctl', 'daemon-reload']);
  t.match(await couchdb(), { state: 'fail', detail: /^couchdb\.service runs as user nobody;/ });
  await host.must(['rm', user]);
  await host.must(['systemctl', 'daemon-reload']);
  await host.must(['sed', '-i', '/^directory = /d', CONFIG]);
  t.match(await couchdb(), {
    state: 'fail',
    detail: `CouchDB is not in /opt/couchdb, but in ${PLACE}`,
    next: `set couchdb.directory = "${PLACE}" in ${CONFIG}, then systemctl reload bornemisza@db`,
  });

  await host.must(['mv', PLACE, `${PLACE}-gone`]);
  await host.must(['systemctl', 'restart', unit]);
  const said = `${PLACE}/bin/couchdb is not a program: CouchDB is not started -- install CouchDB, or correct`;
  await until(async () => (await host.journal(unit)).includes(said), { what: 'a plain sentence' });
});
