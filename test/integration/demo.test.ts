import t from 'tap';
import { STORY } from '../demo/story.ts';
import { demo } from './demo-bed.ts';

const titles = STORY.map((step) => step.title);

t.test('the whole story is seen by HAProxy, the router and CouchDB', { timeout: 1_100_000 }, async (t) => {
  const { code, steps, said } = await demo([]);
  if (code !== 0) t.comment(said);
  t.equal(code, 0);
  t.same(
    steps.map((step) => step.title),
    titles,
  );
  for (const step of steps) {
    t.ok(step.ok, step.title);
    for (const where of ['haproxy', 'routes', 'couchdb'])
      t.type(step.seen[where], 'number', `${step.title}: seen in ${where}`);
  }
});
