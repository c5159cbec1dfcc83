import t from 'tap';
import { tellsWholeStory } from '../integration/demo-bed.ts';

t.test('the whole story is seen by HAProxy, the router and CouchDB', { timeout: 1_100_000 }, async (t) => {
  const steps = await tellsWholeStory(t, [], ['haproxy', 'routes', 'couchdb'], true);
  const seen = new Map(steps.map((step) => [step.title, step.seen]));
  for (const [title, where] of [
    ['the site has a certificate from a CA', 'tls'],
    ['every machine closes its ports', 'ports'],
    ['db4 joins with a token', 'dns'],
    ['a person registers at app2', 'user'],
    ['app2 is killed', 'user'],
    ['app2 is killed', 'dns'],
    ['app3 is removed', 'dns'],
    ['app3 is removed', 'ports'],
  ] as const)
    t.type(seen.get(title)?.[where], 'number', `${title}: ${where}`);
});
