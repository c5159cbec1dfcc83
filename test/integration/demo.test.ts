import t from 'tap';
import { tellsWholeStory } from './demo-bed.ts';

t.test('the whole story is seen by HAProxy, the router and CouchDB', { timeout: 1_100_000 }, async (t) => {
  await tellsWholeStory(t, [], ['haproxy', 'routes', 'couchdb']);
});
