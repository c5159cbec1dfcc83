import { access, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { parseConfig } from '../../../src/daemon/config/config.ts';
import type { Log } from '../../../src/daemon/process/log.ts';
import type { Role } from '../../../src/daemon/membership/types.ts';
import { SignsOfLife } from '../../../src/daemon/process/signs-of-life.ts';
import { until } from '../../support/until.ts';

const config = (role: Role) =>
  parseConfig(
    '[node]\ncluster = "shop"\nhost = "app1"\n[network]\nprivate_address = "10.0.0.11"\nprivate_network ' +
      '= "10.0.0.0/24"\nprivate_device = "eth1"\n[floating]\nmode = "bgp"\naddresses = ["203.0.113.10"]\n',
    role,
    `${role}.toml`,
  );

/** What systemd and the dead-man switch hear of a node. */
function signsOf(t: Test, role: Role = 'app') {
  const heard: string[] = [];
  const say = (word: string) => async (text: string) => void heard.push(`${word} ${text}`);
  const driver = { lastTurnMs: 0, now: 0, nowMs: () => driver.now };
  const node = { text: 'app1/app up' };
  const heartbeat = join(t.testdir(), 'deadman/heartbeat');
  const signs = new SignsOfLife({
    log: {} as Log,
    serviceManager: {
      ready: say('READY'),
      status: say('STATUS'),
      stopping: say('STOPPING'),
      reloading: async () => void heard.push('RELOADING'),
      watchdog: async () => void heard.push('WATCHDOG'),
      watchdogIntervalMs: 20,
    },
    driver,
    heartbeat,
    node: { config: config(role), text: () => node.text },
  });
  t.teardown(() => signs.close());
  return { signs, heard, driver, node, heartbeat };
}

t.test('systemd gets a status when it changes, and the same again after a reload', async (t) => {
  const { signs, heard, node } = signsOf(t);
  await signs.start();
  signs.close();
  await signs.tellStatus();
  node.text = 'app1/app down';
  await signs.tellStatus();
  await signs.tellStatus();
  await signs.reloaded();
  t.strictSame(
    heard.filter((each) => each !== 'WATCHDOG'),
    ['READY app1/app up', 'STATUS app1/app down', 'READY app1/app down'],
  );
});

t.test('a loop that does not turn feeds neither the watchdog nor the dead-man switch', async (t) => {
  const { signs, heard, driver, heartbeat } = signsOf(t);
  await signs.start();
  await until(() => heard.includes('WATCHDOG'), { what: 'the watchdog is fed' });
  signs.beat();
  await until(() => readFile(heartbeat, 'utf8'), { what: 'a heartbeat' });
  driver.now = 60_000;
  heard.length = 0;
  const before = await readFile(heartbeat, 'utf8');
  signs.beat();
  // Longer than three of the watchdog's intervals: it had its occasions.
  let intervals = 0;
  const timer = setInterval(() => (intervals += 1), 20);
  t.teardown(() => clearInterval(timer));
  await until(() => intervals >= 3, { what: 'three intervals' });
  t.strictSame(heard, []);
  t.equal(await readFile(heartbeat, 'utf8'), before);
  driver.lastTurnMs = 59_990;
  await until(() => heard.includes('WATCHDOG'), { what: 'it turns again' });
});

t.test('the last beat leaves the dead-man switch nothing to take off', async (t) => {
  const { signs, heartbeat } = signsOf(t);
  signs.beat();
  await signs.lastBeat();
  t.match(await readFile(heartbeat, 'utf8'), /^\d+ bm-float 80\n$/);
});

t.test('role db has no floating IPs, and no heartbeat', async (t) => {
  const { signs, heartbeat } = signsOf(t, 'db');
  signs.beat();
  await signs.lastBeat();
  await t.rejects(access(heartbeat));
});
