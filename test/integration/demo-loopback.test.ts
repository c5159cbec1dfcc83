import t from 'tap';
import { tellsWholeStory } from './demo-bed.ts';

t.test('the loopback variant shows the same demo without a router', { timeout: 1_100_000 }, async (t) => {
  const steps = await tellsWholeStory(t, ['--loopback'], ['haproxy', 'couchdb'], false);
  for (const step of steps) t.notOk('routes' in step.seen, 'nothing is said of routes where nobody routes');
});
