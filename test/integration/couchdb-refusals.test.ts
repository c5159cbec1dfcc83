import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { Cluster } from './couchdb-cluster.ts';

// A loaded machine and a real CouchDB: joins under load wait for CouchDB's own sync, some 5 s a round.
t.setTimeout(2_300_000);

t.test('what is refused, and says what to do next', async (t) => {
  const cluster = await Cluster.make();
  t.teardown(() => cluster.close());
  const first = await cluster.add();
  await cluster.serving([first]);
  await first.ask('PUT', 'app');
  await first.ask('PUT', 'app/kept', { here: true });

  await t.test('the user of the app nodes is made, follows its secret and keeps its roles', async (t) => {
    const path = '_users/org.couchdb.user:app';
    const login = async (password: string) =>
      (await first.ask('POST', '_session', { name: 'app', password })).status;
    t.equal(await login('app-password'), 200);
    const made = (await first.ask('GET', path)).body as { _rev: string; roles: string[] };
    t.same(made.roles, ['app', 'bornemisza-app']);
    t.equal(
      (await first.ask('PUT', path, { ...made, roles: ['app', 'bornemisza-app', 'shop'] })).status,
      201,
    );
    first.appPassword = 'rolled-password';
    await cluster.until('it is written', () =>
      first.applied.some((text) => text.includes('another password')),
    );
    await cluster.serving([first]);
    // A release keeps users in a cache that hears of the write a moment later; a wrong guess would count for the lock.
    await cluster.until('the old one is refused', async () => (await login('app-password')) === 401);
    t.equal(await login('rolled-password'), 200);
    const rolled = (await first.ask('GET', path)).body as { _rev: string; roles: string[] };
    t.same(rolled.roles, ['app', 'bornemisza-app', 'shop']);
    const times = first.applied.filter((text) => text.includes('user of the app nodes')).length;
    t.equal(times, 2, 'written when it was not there and when it differed, not again');
    t.notMatch(JSON.stringify(first.applied), 'rolled-password');
  });

  await t.test('the user of the app nodes gets a role back that was taken, and others stay', async (t) => {
    const path = '_users/org.couchdb.user:app';
    const now = (await first.ask('GET', path)).body as { roles: string[] };
    t.equal((await first.ask('PUT', path, { ...now, roles: ['shop'] })).status, 201);
    const rolesNow = async () => ((await first.ask('GET', path)).body as { roles: string[] }).roles;
    await cluster.until('it has its role', async () => (await rolesNow()).includes('bornemisza-app'));
    t.same(await rolesNow(), ['shop', 'bornemisza-app']);
    await cluster.serving([first]);
  });

  await t.test(
    '_users lets accounts in, each to its own document, and keeps what a person added',
    async (t) => {
      const keeper = ['_admin', 'bornemisza-app'];
      const party = async (name: 'admins' | 'members') =>
        ((await first.ask('GET', '_users/_security')).body as Record<string, { roles: string[] }>)[name]
          ?.roles;
      t.same(await party('admins'), keeper);
      t.same(await party('members'), [...keeper, 'account']);
      for (const name of ['anna', 'bert']) {
        const person = { type: 'user', name, roles: ['account'], password: `${name}-password` };
        t.equal((await first.ask('PUT', `_users/org.couchdb.user:${name}`, person)).status, 201);
      }
      const asked = async (name: string, password: string, path: string) => {
        const authorization = `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`;
        return fetch(`http://${first.address}:15984/${path}`, { headers: { authorization } });
      };
      const as = async (name: string, password: string, path: string) =>
        (await asked(name, password, path)).status;
      const anna = ['anna', 'anna-password'] as const;
      await cluster.until('its database', async () => (await as(...anna, 'userdb-616e6e61')) === 200);
      await cluster.until(
        'the other one',
        async () => (await first.ask('GET', 'userdb-62657274')).status === 200,
      );
      t.equal(await as(...anna, '_users/org.couchdb.user:anna'), 200);
      t.equal(await as(...anna, '_users/org.couchdb.user:bert'), 404, 'of another person nothing is seen');
      t.equal(await as(...anna, 'userdb-62657274'), 403, 'nor its database');
      t.equal(await as('app', 'rolled-password', '_users/org.couchdb.user:bert'), 200);
      t.equal(await as('app', 'rolled-password', 'userdb-62657274'), 403, 'the app nodes open no database');

      const names = {
        members: { names: ['carl'], roles: ['support'] },
        admins: { names: [], roles: ['_admin'] },
      };
      t.equal((await first.ask('PUT', '_users/_security', names)).status, 200);
      await cluster.until(
        'it is open again',
        async () => (await party('members'))?.includes('account') === true,
      );
      t.same(await party('members'), ['support', '_admin', 'bornemisza-app', 'account']);
      t.match((await first.ask('GET', '_users/_security')).body, { members: { names: ['carl'] } });
      await cluster.serving([first]);

      const { _rev: rev } = (await first.ask('GET', '_users/org.couchdb.user:bert')).body as { _rev: string };
      await first.ask('DELETE', `_users/org.couchdb.user:bert?rev=${rev}`);
      await cluster.until(
        'its database goes',
        async () => (await first.ask('GET', 'userdb-62657274')).status === 404,
      );
    },
  );

  await t.test('a wrong password is tried once, and the right one works at once', async (t) => {
    first.password = 'wrong-password';
    await cluster.until('it is refused', () => first.lastError?.code === 'couchdb-password-refused');
    t.equal(first.lastError?.outcome, 'terminal');
    // Five wrong passwords would lock the account, for the right one too.
    const { turns } = first;
    await cluster.until('ten turns', () => first.turns >= turns + 10);
    t.equal((await first.ask('GET', '_membership')).status, 200, 'the account is not locked');
    first.password = 'right-password';
    await cluster.serving([first]);
    t.notMatch(JSON.stringify(first.applied), 'wrong-password');
  });

  /** Five wrong passwords as a client gives them: through a door, or on this host. */
  const guess = async (headers: Record<string, string>) => {
    for (let count = 0; count < 5; count += 1) {
      const response = await fetch(`http://${first.address}:15984/_session`, {
        headers: { ...headers, authorization: `Basic ${Buffer.from('admin:guess').toString('base64')}` },
      });
      await response.text();
    }
  };

  await t.test('wrong passwords through a door lock the client, not the daemon', async (t) => {
    await guess({ 'x-forwarded-for': '10.0.0.11' });
    const { turns } = first;
    await cluster.until('ten turns', () => first.turns >= turns + 10);
    t.equal((await first.ask('GET', '_membership')).status, 200);
    t.equal(first.plugin.known().phase, 'serving');
    t.notOk(first.applied.some((text) => text.includes('locked')));
  });

  await t.test('a lock from this host is reported, and the daemon recovers when it ends', async (t) => {
    await guess({});
    await cluster.until('it is reported', () => first.lastError?.code === 'couchdb-account-locked');
    t.equal(first.lastError?.outcome, 'retry');
    t.match(first.lastError?.message, 'another client');
    t.equal(first.plugin.known().phase, 'serving', 'it is not taken out');
    t.match(first.plugin.known().alarms, [{ code: 'couchdb-account-locked' }]);
    // A lock lasts 5 minutes: it is ended here once it was seen, by an administrator at another address.
    const { status } = await fetch(
      `http://${first.address}:15984/_node/_local/_config/chttpd_auth_lockout/mode`,
      {
        method: 'PUT',
        headers: {
          'x-forwarded-for': '10.0.0.12',
          authorization: `Basic ${Buffer.from('admin:right-password').toString('base64')}`,
        },
        body: '"off"',
      },
    );
    t.equal(status, 200, 'another address is not locked');
    await cluster.until('it goes on', () => first.plugin.known().disagreement === undefined);
    await cluster.serving([first]);
  });

  await t.test('the last node cannot leave', async (t) => {
    first.phase = 'leaving';
    await cluster.until('it is refused', () => first.lastError?.code === 'couchdb-last-node');
    t.match(first.lastError?.message, 'app', 'the databases are named');
    t.equal((await first.ask('GET', 'app/kept')).status, 200);
    first.phase = 'in';
    await cluster.serving([first]);
  });

  await t.test('a joiner with databases of its own is not taken in, until they are gone', async (t) => {
    const second = await cluster.add();
    // It makes a database of its own before anybody takes it in: nobody hears of it meanwhile.
    cluster.hush(second);
    await cluster.until('it runs', () => second.plugin.known().phase === 'fresh');
    t.equal((await second.ask('PUT', 'app')).status, 201, 'the same name as one of the cluster');
    await cluster.until('it is refused', () => second.lastError?.code === 'couchdb-joiner-has-databases');
    cluster.hush(undefined);
    t.match(second.lastError?.message, 'app');
    await cluster.until('the coordinator looked several times', () => second.plugin.known().tag === 'out');
    t.same(((await first.ask('GET', '_membership')).body as { cluster_nodes: string[] }).cluster_nodes, [
      first.nodeName,
    ]);
    t.equal((await first.ask('GET', 'app/kept')).status, 200);

    await second.stop();
    await second.wipe();
    await second.start();
    await cluster.serving([first, second]);
    t.equal((await second.ask('GET', 'app/kept')).status, 200);
  });

  await t.test('a copied disk is refused', async (t) => {
    const [, second] = cluster.nodes;
    if (second === undefined) throw new Error('the second was added');
    await writeFile(
      join(second.directory, 'couch', 'data', 'bornemisza-identity.json'),
      '{"nodeName":"couchdb@127.9.9.9","peerId":"other"}\n',
    );
    await cluster.until('it is refused', () => second.lastError?.code === 'couchdb-foreign-data');
    t.equal(second.lastError?.outcome, 'terminal');
  });
});
