import t from 'tap';
import { STORY } from '../demo/story.ts';
import { demo } from '../integration/demo-bed.ts';

const titles = STORY.map((step) => step.title);

t.test('the loopback variant tells the same story without a router', { timeout: 1_100_000 }, async (t) => {
  const { code, steps, said } = await demo(['--loopback']);
  if (code !== 0) t.comment(said);
  t.equal(code, 0);
  t.same(
    steps.map((step) => step.title),
    titles,
  );
  for (const step of steps) {
    t.ok(step.ok, step.title);
    for (const where of ['haproxy', 'couchdb'])
      t.type(step.seen[where], 'number', `${step.title}: seen in ${where}`);
    t.notOk('routes' in step.seen, 'nothing is said of routes where nobody routes');
  }
});
