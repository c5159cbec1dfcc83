import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import t, { type Test } from 'tap';
import { parseConfig } from '../../../src/daemon/config/config.ts';
import type { Member } from '../../../src/daemon/membership/types.ts';
import type { Payload } from '../../../src/daemon/notification/message.ts';
import { type Failure, Notifier } from '../../../src/daemon/notification/notifier.ts';
import { until } from '../../support/until.ts';
import { member, viewOf } from './views.ts';

/** The notifier with a clock of the test, and a real webhook that can be told to refuse. */
class Desk {
  readonly got: Payload[] = [];
  readonly failures: Failure[] = [];
  readonly told: string[] = [];
  status = 200;
  nowMs = Date.UTC(2026, 0, 2);
  members: readonly Member[] = [member('app1/app', { self: true })];
  kept: unknown;
  readonly #server = createServer((request, response) => {
    let text = '';
    request.setEncoding('utf8').on('data', (part: string) => (text += part));
    request.on('end', () => {
      if (this.status === 200) this.got.push(JSON.parse(text) as Payload);
      response.writeHead(this.status).end();
    });
  });

  async open(t: Test): Promise<this> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    t.teardown(() => {
      this.#server.closeAllConnections();
      this.#server.close();
    });
    return this;
  }

  settings(lines: string) {
    const { port } = this.#server.address() as AddressInfo;
    const text =
      `[node]\ncluster = "shop"\nhost = "app1"\n[network]\nprivate_address = "10.0.0.11"\nprivate_network ` +
      `= "10.0.0.0/24"\nprivate_device = "eth1"\n[notify]\n${lines.replaceAll('PORT', String(port))}`;
    return parseConfig(text, 'app', 'app.toml').notify;
  }

  notifier(t: Test, lines = 'webhook_url = "http://127.0.0.1:PORT/x"\n'): Notifier {
    const notifier = new Notifier(this.settings(lines), this.kept, {
      cluster: 'shop',
      node: 'app1/app',
      wallMs: () => this.nowMs,
      upMs: () => 3_600_000,
      view: () => viewOf(this.members),
      certificates: () => new Map(this.members.map(({ record }) => [record.name, this.nowMs * 2])),
      save: (state) => (this.kept = JSON.parse(JSON.stringify(state))),
      told: ({ subject }, channels) => void this.told.push(`${channels.join(',')}: ${subject}`),
      failed: (_channel, failure) => void this.failures.push(failure),
    });
    t.teardown(() => notifier.close());
    return notifier;
  }

  /** Looks once a second of the test's clock, letting what was sent arrive. */
  async pass(notifier: Notifier, seconds: number): Promise<void> {
    for (let at = 0; at < seconds; at += 1) {
      this.nowMs += 1000;
      notifier.tick();
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

const GONE = [member('app1/app', { self: true }), member('db2/db', { state: 'dead' })];

t.test('an event goes out once, is kept, and is not sent again by the next process', async (t) => {
  const desk = await new Desk().open(t);
  const first = desk.notifier(t);
  t.same(first.tags, { notify: 'ok' });
  desk.members = GONE;
  await desk.pass(first, 15);
  await until(async () => desk.told.length === 1 || Promise.reject(new Error('not yet')), {
    what: 'the message',
  });
  t.equal(desk.got.length, 1);
  t.match(desk.got[0], { subject: '[shop] db2/db is dead', events: [{ state: 'began', subject: 'db2/db' }] });
  t.same(desk.told, ['webhook: [shop] db2/db is dead']);
  first.tick();
  t.match(first.tags['told'], /^[\w-]{6}$/);
  await first.close();

  const second = desk.notifier(t);
  t.same(second.tags, first.tags, 'from the start');
  await desk.pass(second, 1000);
  t.equal(desk.got.length, 1);
  desk.members = [member('app1/app', { self: true }), member('db2/db', { record: { incarnation: 9 } })];
  await desk.pass(second, 15);
  await until(async () => desk.got.length === 2 || Promise.reject(new Error('not yet')), {
    what: 'the return',
  });
  t.match(desk.got[1], { subject: '[shop] db2/db is back' });
  desk.kept = 'something else';
  t.same(desk.notifier(t).tags, { notify: 'ok' }, 'a damaged memory is none');
});

t.test(
  'a channel that fails is one warning, published in the record, and tried again until it works',
  async (t) => {
    const desk = await new Desk().open(t);
    desk.status = 503;
    const notifier = desk.notifier(t);
    desk.members = GONE;
    await desk.pass(notifier, 12);
    await until(async () => notifier.warnings.length === 1 || Promise.reject(new Error('not yet')), {
      what: 'the warning',
    });
    notifier.tick();
    t.equal(notifier.tags['notify'], 'failing');
    t.match(notifier.warnings, [
      { message: /notification by webhook fails: .* answers 503/, next: /^correct notify.webhook_url/ },
    ]);
    // Each of the tries in an hour must end before the clock of the test goes on.
    for (let minute = 0; minute < 60; minute += 1) {
      await desk.pass(notifier, 60);
      await notifier.idle();
    }
    t.equal(desk.failures.length, 1, 'an hour of failures is one word in the journal');
    desk.status = 200;
    for (let minute = 0; minute < 20 && desk.got.length === 0; minute += 1) {
      await desk.pass(notifier, 60);
      await notifier.idle();
    }
    t.equal(desk.got.length, 1);
    notifier.tick();
    t.equal(notifier.tags['notify'], 'ok');
    t.same(notifier.warnings, []);
  },
);

t.test('if one channel works the event is sent, and the other is a warning', async (t) => {
  const desk = await new Desk().open(t);
  const notifier = desk.notifier(t, 'webhook_url = "http://127.0.0.1:PORT/x"\ncommand = ["/bin/false"]\n');
  desk.members = GONE;
  await desk.pass(notifier, 12);
  await notifier.idle();
  t.same(desk.told, ['webhook: [shop] db2/db is dead']);
  t.match(desk.failures, [{ code: 'notify-command-failed' }]);
  notifier.tick();
  t.equal(notifier.tags['notify'], 'ok');
  const results = [];
  for await (const { channel, failure } of notifier.test()) results.push([channel.name, failure?.code]);
  t.same(results, [
    ['webhook', undefined],
    ['command', 'notify-command-failed'],
  ]);
  t.match(desk.got.at(-1), { subject: '[shop] test from app1/app', test: true });
});

t.test('a way that failed once gets the same message a little later', async (t) => {
  const desk = await new Desk().open(t);
  const place = t.testdir();
  const program = `${place}/page`;
  await writeFile(
    program,
    `#!/bin/sh\ntest -e ${place}/second && exec cat >${place}/got\ntouch ${place}/second; exit 1\n`,
    {
      mode: 0o755,
    },
  );
  const notifier = desk.notifier(t, `webhook_url = "http://127.0.0.1:PORT/x"\ncommand = ["${program}"]\n`);
  desk.members = GONE;
  await desk.pass(notifier, 12);
  await notifier.idle();
  t.equal(notifier.warnings.length, 1);
  const got = await until(async () => JSON.parse(await readFile(`${place}/got`, 'utf8')) as Payload, {
    deadlineMs: 60_000,
    what: 'the second try',
  });
  t.same(got, desk.got[0]);
  await until(async () => notifier.warnings.length === 0 || Promise.reject(new Error('not yet')), {
    what: 'no warning any more',
  });
  t.equal(desk.got.length, 1, 'and nobody else gets it twice');
});

t.test(
  'without [notify] a node publishes nothing, and forgets its events when the section is removed',
  async (t) => {
    const desk = await new Desk().open(t);
    const silent = desk.notifier(t, '');
    desk.members = GONE;
    await desk.pass(silent, 60);
    t.same([silent.tags, desk.kept], [{}, undefined]);

    const notifier = desk.notifier(t);
    await desk.pass(notifier, 12);
    await notifier.idle();
    t.equal(desk.got.length, 1);
    notifier.reconfigure(desk.settings(''));
    t.equal(notifier.tick(), false);
    t.same(notifier.tags, {});
    t.match(desk.kept, { entries: [] });
    notifier.reconfigure(desk.settings('webhook_url = "http://127.0.0.1:PORT/x"\n'));
    t.equal(notifier.tick(), true);
  },
);
