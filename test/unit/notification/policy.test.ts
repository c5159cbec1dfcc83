import t from 'tap';
import { markOf } from '../../../src/daemon/notification/policy.ts';
import { OPTIONS, Tellers } from './tellers.ts';

const THREE = ['app1/app', 'app2/app', 'db1/db'];
const WAIT = OPTIONS.waitMs + 2000;
/** By then whoever holds an event back for another has told it. */
const TAKEN_OVER = OPTIONS.intervalMs + 60_000;

t.test('one node sends the notification of an event, and the others learn that it was sent', async (t) => {
  const nodes = new Tellers(THREE);
  nodes.pass(5000);
  nodes.begins('dead db2/db 7');
  nodes.pass(OPTIONS.waitMs - 1000);
  t.same(nodes.sent, [], 'not before it has held for the wait');
  nodes.pass(2000);
  t.same(nodes.tellings('dead db2/db 7'), ['began by app1/app']);
  nodes.pass(3 * TAKEN_OVER);
  t.equal(nodes.sent.length, 1);
  t.match(nodes.tagsOf('app1/app')['told'], markOf('dead db2/db 7'));

  nodes.ends('dead db2/db 7');
  nodes.pass(WAIT);
  t.same(nodes.tellings('dead db2/db 7'), ['began by app1/app', 'ended by app1/app']);
  nodes.pass(3 * TAKEN_OVER);
  t.equal(nodes.sent.length, 2, 'the return as well, once');
  t.same(nodes.tagsOf('app1/app'), { notify: 'ok' }, 'and nothing is left to say about it');
});

t.test('an event that ends during the wait is not sent', async (t) => {
  const nodes = new Tellers(THREE);
  nodes.begins('dead db2/db 7');
  nodes.pass(OPTIONS.waitMs - 1000);
  nodes.ends('dead db2/db 7');
  nodes.pass(TAKEN_OVER);
  t.same(nodes.sent, []);
});

t.test('many deaths in a short time are one message', async (t) => {
  const nodes = new Tellers(THREE);
  for (let at = 1; at <= 9; at += 1) {
    nodes.begins(`dead db${at}/db 7`);
    nodes.pass(1000);
  }
  nodes.pass(3000);
  t.equal(nodes.sent.length, 1);
  t.equal(nodes.sent[0]?.events.length, 9);
});

t.test('a notifier that dies with the node of the event is replaced by the next at once', async (t) => {
  const nodes = new Tellers(THREE);
  nodes.pass(5000);
  nodes.dies('app1/app');
  nodes.begins('dead app1/app 3');
  nodes.begins('dead db2/db 7');
  nodes.pass(WAIT);
  t.same(nodes.tellings('dead db2/db 7'), ['began by app2/app']);
  t.same(nodes.tellings('dead app1/app 3'), ['began by app2/app']);
  t.equal(nodes.sent.length, 1);
});

t.test(
  'a notifier that dies before it sent is replaced; if it dies after, nothing is sent twice',
  async (t) => {
    const nodes = new Tellers(THREE);
    nodes.begins('early');
    nodes.pass(5000);
    nodes.dies('app1/app');
    nodes.pass(WAIT);
    t.same(nodes.tellings('early'), ['began by app2/app']);
    nodes.dies('app2/app');
    nodes.pass(3 * TAKEN_OVER);
    t.same(nodes.tellings('early'), ['began by app2/app'], 'the record of the dead still says so');
    nodes.returns('app1/app');
    nodes.pass(3 * TAKEN_OVER);
    t.same(nodes.tellings('early'), ['began by app2/app'], 'nor by one that comes back');
  },
);

t.test('a notifier whose channels fail reports that, and the next one sends', async (t) => {
  const nodes = new Tellers(THREE);
  nodes.pass(2000);
  nodes.cannotSend('app1/app');
  nodes.begins('dead db2/db 7');
  nodes.pass(WAIT + 3000);
  t.same(nodes.tellings('dead db2/db 7'), ['began by app2/app']);
  t.equal(nodes.tagsOf('app1/app')['notify'], 'failing');
  nodes.cannotSend('app1/app', false);
  nodes.pass(3 * TAKEN_OVER);
  t.equal(nodes.sent.length, 1);
});

t.test('if no node can send, the event is sent as soon as one can', async (t) => {
  const nodes = new Tellers(THREE);
  for (const name of THREE) nodes.cannotSend(name);
  nodes.begins('dead db2/db 7');
  nodes.pass(10 * TAKEN_OVER);
  t.same(nodes.sent, []);
  for (const name of THREE) nodes.cannotSend(name, false);
  nodes.pass(3 * TAKEN_OVER);
  t.equal(nodes.tellings('dead db2/db 7').length, 1);
});

t.test('after three messages there is one in each interval, and it has everything', async (t) => {
  const nodes = new Tellers(THREE);
  for (let at = 1; at <= 20; at += 1) {
    nodes.begins(`event ${at}`);
    nodes.pass(20_000);
  }
  t.ok(nodes.sent.length >= 3 && nodes.sent.length <= 3 + 2, `${nodes.sent.length} in 400 s`);
  nodes.pass(OPTIONS.intervalMs);
  for (let at = 1; at <= 20; at += 1) t.same(nodes.tellings(`event ${at}`), ['began by app1/app'], `${at}`);
  t.ok(
    nodes.sent.every(({ by }) => by === 'app1/app'),
    'a limit is no reason to take over',
  );
});

t.test('an event that begins and ends within the rate limit is sent as a past one', async (t) => {
  const nodes = new Tellers(THREE);
  for (const key of ['one', 'two', 'three']) {
    nodes.begins(key);
    nodes.pass(20_000);
  }
  nodes.begins('short');
  nodes.pass(30_000);
  nodes.ends('short');
  nodes.pass(OPTIONS.intervalMs);
  t.same(nodes.tellings('short'), ['passed by app1/app']);
  nodes.pass(5 * TAKEN_OVER);
  t.same(nodes.tellings('short'), ['passed by app1/app']);
});

t.test('an announced stop is sent only if it lasts', async (t) => {
  const nodes = new Tellers(THREE);
  nodes.begins('reboot', { announced: true });
  nodes.begins('gone', { announced: true });
  nodes.pass(60_000);
  nodes.ends('reboot');
  nodes.pass(300_000);
  t.same(nodes.tellings('reboot'), []);
  t.same(nodes.tellings('gone'), ['began by app1/app']);
});

t.test('an event that only one node sees is sent by it, after the others had their turn', async (t) => {
  const nodes = new Tellers(THREE);
  nodes.begins('only here', {}, (name) => name === 'db1/db');
  nodes.pass(2 * TAKEN_OVER + WAIT + 1000);
  t.same(nodes.tellings('only here'), ['began by db1/db']);
  nodes.ends('only here');
  nodes.pass(WAIT);
  t.same(
    nodes.tellings('only here'),
    ['began by db1/db', 'ended by db1/db'],
    'its end without a wait for others',
  );
});

t.test('another node sends the end if the notifier has died', async (t) => {
  const nodes = new Tellers(THREE);
  nodes.begins('dead db2/db 7');
  nodes.pass(WAIT);
  nodes.dies('app1/app');
  nodes.pass(5000);
  nodes.ends('dead db2/db 7');
  nodes.pass(WAIT);
  t.same(nodes.tellings('dead db2/db 7'), ['began by app1/app', 'ended by app2/app']);
  nodes.pass(3_600_000);
  nodes.returns('app1/app');
  nodes.pass(3 * TAKEN_OVER);
  t.equal(nodes.sent.length, 2, 'and not again by the first when it is back');
});

t.test(
  'the sent notifications of a removed node are passed on, even to a new node that is the first',
  async (t) => {
    const nodes = new Tellers(THREE);
    nodes.begins('dead db2/db 7');
    nodes.pass(WAIT);
    nodes.dies('app1/app');
    nodes.pass(10_000);
    nodes.remove('app1/app');
    nodes.joins('app0/app');
    nodes.pass(3 * TAKEN_OVER);
    t.same(nodes.tellings('dead db2/db 7'), ['began by app1/app']);
    nodes.ends('dead db2/db 7');
    nodes.pass(WAIT + TAKEN_OVER);
    t.equal(nodes.tellings('dead db2/db 7').length, 2, 'its end is told, once');
    nodes.pass(3 * TAKEN_OVER);
    t.equal(nodes.sent.length, 2);
  },
);

t.test('eighty that die together are one message, repeated by nobody, and fit into tags', async (t) => {
  const nodes = new Tellers(THREE);
  for (let at = 0; at < 80; at += 1) nodes.begins(`dead node${at}/app 7`);
  nodes.pass(WAIT + 5 * TAKEN_OVER);
  t.equal(nodes.sent.length, 1);
  const tags = Object.entries(nodes.tagsOf('app1/app'));
  t.equal(tags.length, 9);
  t.ok(tags.every(([, value]) => Buffer.byteLength(value) <= 64));
});

t.test('a clock that is set back by a year delays no notification', async (t) => {
  const year = 365 * 24 * 3_600_000;
  const nodes = new Tellers(['app1/app']);
  nodes.begins('early');
  nodes.pass(5000);
  nodes.setClock(nodes.nowMs - year);
  nodes.pass(WAIT);
  t.same(nodes.tellings('early'), ['began by app1/app']);
  for (const key of ['one', 'two', 'three']) {
    nodes.begins(key);
    nodes.pass(30_000);
  }
  nodes.setClock(nodes.nowMs - year);
  nodes.begins('late');
  nodes.pass(WAIT + OPTIONS.intervalMs);
  t.same(nodes.tellings('late'), ['began by app1/app']);
});
