import { rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { HostFinding } from '../../../src/daemon/health/host-finding.ts';
import { Machine } from '../../../src/daemon/health/machine.ts';
import { countedUnits, Restarts, restartsIn } from '../../../src/daemon/health/restarts.ts';
import { parseService } from '../../../src/daemon/config/config.ts';
import { BGP, configOf } from '../node/scenes.ts';

const SHOP = 'shop.service';

/** A systemd by the links that it makes, and its answers. */
function systemd(t: Test) {
  const directory = t.testdir({ run: {}, invocations: {}, sys: {} });
  const state = { count: 0, up: 10_000, asked: 0, answers: true };
  const link = join(directory, 'invocations', `invocation:${SHOP}`);
  let id = 0;
  const start = async (restarts: number): Promise<void> => {
    state.count = restarts;
    id += 1;
    await rm(link, { force: true });
    await symlink(`id${id}`, link);
  };
  let nowMs = 0;
  const make = () =>
    new Restarts({
      units: () => [SHOP],
      file: join(directory, 'run', 'restarts.json'),
      invocations: join(directory, 'invocations'),
      uptimeSeconds: () => state.up,
      ask: async (units) => {
        state.asked += 1;
        return state.answers ? units.map((unit) => ({ unit, restarts: state.count })) : undefined;
      },
    });
  const later = async (of: Restarts, seconds: number): Promise<HostFinding | undefined> => {
    state.up += seconds;
    nowMs += seconds * 1000;
    await of.look(nowMs);
    return of.finding;
  };
  return { state, start, make, later, sys: join(directory, 'sys') };
}

t.test('three restarts within ten minutes are found, and are over ten minutes later', async (t) => {
  const { start, make, later } = systemd(t);
  await start(7);
  const restarts = make();
  t.equal(await later(restarts, 10), undefined, 'nobody knows when those were');
  t.same(restarts.counts, [{ unit: SHOP, restarts: 7 }]);
  await start(8);
  t.equal(await later(restarts, 10), undefined);
  await start(10);
  t.match(await later(restarts, 500), {
    code: 'unit-restarts',
    message: /^systemd restarted shop\.service 3 times in the last ten minutes/,
    next: 'journalctl -u shop.service -n 50',
  });
  t.equal(await later(restarts, 200), undefined, 'the first one was longer ago');
});

t.test('a start by hand, which sets the count to 0, is no restart', async (t) => {
  const { start, make, later } = systemd(t);
  await start(5);
  const restarts = make();
  await later(restarts, 10);
  for (let count = 0; count < 4; count += 1) {
    await start(0);
    t.equal(await later(restarts, 10), undefined);
  }
  t.same(restarts.counts, [{ unit: SHOP, restarts: 0 }]);
});

t.test('systemd is asked only after a unit was started again, and sometimes', async (t) => {
  const { state, start, make, later } = systemd(t);
  await start(0);
  const restarts = make();
  for (let look = 0; look < 20; look += 1) await later(restarts, 10);
  t.equal(state.asked, 1);
  await start(1);
  await later(restarts, 10);
  t.equal(state.asked, 2);
  for (let look = 0; look < 62; look += 1) await later(restarts, 10);
  t.equal(state.asked, 3, 'the links may be elsewhere');
});

t.test('an answer that fails is asked for again, and what was known stays', async (t) => {
  const { state, start, make, later } = systemd(t);
  await start(1);
  const restarts = make();
  await later(restarts, 10);
  state.answers = false;
  await start(2);
  await later(restarts, 10);
  t.same(restarts.counts, [{ unit: SHOP, restarts: 1 }]);
  state.answers = true;
  await later(restarts, 10);
  t.same(restarts.counts, [{ unit: SHOP, restarts: 2 }]);
});

t.test('a daemon that is itself restarted remembers the times', async (t) => {
  const { start, make, later } = systemd(t);
  await start(0);
  await later(make(), 10);
  let found: HostFinding | undefined;
  for (let count = 1; count <= 3; count += 1) {
    await start(count);
    found = await later(make(), 30);
  }
  t.match(found, { code: 'unit-restarts' });
});

t.test('it is a fault of the machine: in status, in the record, in the audit trail', async (t) => {
  const { start, make, later, sys } = systemd(t);
  await start(0);
  const restarts = make();
  await later(restarts, 10);
  const told: string[] = [];
  let nowMs = 0;
  const machine = new Machine(
    { devices: { private: undefined, public: undefined }, restarts, sys },
    { nowMs: () => nowMs, changed: ({ code }, began) => told.push(`${code} ${began}`) },
  );
  await start(3);
  await later(restarts, 10);
  await machine.look();
  t.match(machine.findings, [{ code: 'unit-restarts' }]);
  t.equal(machine.tag, 'restarts');
  t.same(machine.restarts, [{ unit: SHOP, restarts: 3 }]);
  await later(restarts, 601);
  nowMs += 10_000;
  await machine.look();
  t.equal(machine.tag, undefined);
  t.same(told, ['unit-restarts true', 'unit-restarts false']);
});

t.test('the answer of systemctl; what is not installed has no count', async (t) => {
  const shown = [
    'NRestarts=4\nId=shop.service\nLoadState=loaded',
    'NRestarts=0\nId=bornemisza-app.service\nLoadState=not-found',
    'Id=dev-sda.device\nLoadState=loaded\n',
  ].join('\n\n');
  t.same(restartsIn(shown), [{ unit: SHOP, restarts: 4 }]);
  t.same(restartsIn(''), []);
});

t.test('the units of a role, and those that its services name', async (t) => {
  const config = configOf('app');
  t.ok(countedUnits(config).includes('bornemisza@app.service'));
  t.notOk(countedUnits(config).includes('bird.service'), 'no floating IP');
  t.ok(countedUnits(configOf('app', BGP)).includes('bird.service'));
  const shop = parseService(`name = "shop"\nport = 3000\nunit = "${SHOP}"`, 'shop.toml');
  t.ok(countedUnits({ ...config, services: [shop] }).includes(SHOP));
  t.same(countedUnits(configOf('db')), [
    'bornemisza@db.service',
    'bornemisza-haproxy@db.service',
    'couchdb.service',
  ]);
});
