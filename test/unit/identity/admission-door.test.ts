import t from 'tap';
import { Door, DOOR_LIMITS, type DoorLimits } from '../../../src/daemon/identity/admission/door.ts';

const loose: DoorLimits = { ...DOOR_LIMITS, burst: 1e6, burstPerAddress: 1e6 };

t.test('whoever comes too often pays alone', async (t) => {
  const door = new Door(DOOR_LIMITS);
  let entered = 0;
  for (let count = 0; count < 1000; count += 1) {
    if (door.enter(`flood:${count}`, '10.0.0.66', 0).enters) entered += 1;
  }
  t.equal(entered, DOOR_LIMITS.burstPerAddress);
  t.ok(door.enter('joiner:1', '10.0.0.9', 0).enters, 'another address comes in at once');
  t.notOk(door.enter('flood:x', '10.0.0.66', 100).enters);
  t.ok(door.enter('flood:y', '10.0.0.66', 1000).enters, 'and later the first one again');
});

t.test('silent visitors make room for newcomers, the oldest first', async (t) => {
  const door = new Door(loose);
  for (let count = 0; count < loose.connectionsPerAddress; count += 1)
    door.enter(`s${count}`, '10.0.0.66', count);
  t.strictSame(
    door.enter('real', '10.0.0.66', 99),
    { enters: true, evicted: 's0' },
    'also from the same address',
  );
  t.equal(door.size, loose.connectionsPerAddress);
});

t.test('a full room makes way for a new address', async (t) => {
  const door = new Door(loose);
  for (let count = 0; count < loose.connections; count += 1)
    t.ok(door.enter(`s${count}`, `10.0.1.${count}`, count).enters);
  t.strictSame(door.enter('real', '10.0.0.9', 99), { enters: true, evicted: 's0' });
  t.equal(door.size, loose.connections);
});

t.test('whoever has proved a token is not pushed out', async (t) => {
  const door = new Door(loose);
  for (let count = 0; count < loose.connectionsPerAddress; count += 1) {
    door.enter(`p${count}`, '10.0.0.9', 0);
    door.prove(`p${count}`);
  }
  t.strictSame(door.enter('next', '10.0.0.9', 1), { enters: false });
  door.leave('p3');
  t.strictSame(door.enter('next', '10.0.0.9', 2), { enters: true });
});

t.test('the memory of addresses is bounded', async (t) => {
  const door = new Door(DOOR_LIMITS);
  for (let count = 0; count < 100_000; count += 1) {
    const name = `a${count}`;
    if (door.enter(name, name, count * 1000).enters) door.leave(name);
  }
  t.equal(door.size, 0);
  t.ok(door.enter('joiner', '10.0.0.9', 1e9).enters);
});

t.test('a clock that stops or goes back gives no address more', async (t) => {
  const door = new Door(DOOR_LIMITS);
  let entered = 0;
  for (let count = 0; count < 100; count += 1) {
    if (door.enter(`x${count}`, '10.0.0.66', 1000 - count).enters) entered += 1;
  }
  t.equal(entered, DOOR_LIMITS.burstPerAddress);
});
