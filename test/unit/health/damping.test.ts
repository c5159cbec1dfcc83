import t from 'tap';
import { initialCheckState, nextCheckState, returnDelayMs } from '../../../src/daemon/health/damping.ts';

const options = { rise: 2, fall: 3, returnDelayMs: 1000 };
const after = (results: string, stepMs = 100) => {
  let state = initialCheckState(0);
  let nowMs = 0;
  const seen = [...results].map((each) => {
    nowMs += stepMs;
    state = nextCheckState(state, each === '+', nowMs, options);
    return state.health === 'up' ? 'U' : 'd';
  });
  return { seen: seen.join(''), state, nowMs };
};

t.test('the first rise needs `rise` passes in a row and no delay', async (t) => {
  t.equal(after('+-++').seen, 'dddU');
});

t.test('fewer than `fall` failures in a row change nothing', async (t) => {
  t.equal(after('++--+--+').seen, 'dUUUUUUU');
});

t.test('`fall` failures in a row make it down', async (t) => {
  t.equal(after('++---').seen, 'dUUUd');
});

t.test('a return waits for the delay, and the passes must not be interrupted', async (t) => {
  t.equal(after('++---++++++++++').seen, 'dUUUddddddddddd');
  t.equal(after('++---+++++++++++').seen, 'dUUUdddddddddddU');
  t.equal(after('++---+++++-+++++').seen, 'dUUUdddddddddddd');
});

t.test('the delay doubles with each flap, is bounded, and is forgotten in time', async (t) => {
  const { state, nowMs } = after(`++${`---${'+'.repeat(25)}`.repeat(2)}---`);
  t.equal(state.fellAtMs.length, 3);
  t.equal(returnDelayMs(state, nowMs, options), 4000);
  t.equal(returnDelayMs({ ...state, fellAtMs: Array<number>(16).fill(nowMs) }, nowMs, options), 120_000);
  t.equal(returnDelayMs(state, nowMs + 700_000, options), 0);
});
