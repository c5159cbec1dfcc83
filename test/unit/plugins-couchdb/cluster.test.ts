import t from 'tap';
import { mayBeServedElsewhere, servedElsewhere } from '../../../src/plugins/couchdb/cluster.ts';
import { desired, map, member, node, observed, type SceneFacts } from './scene.ts';

const two = [member(1), member(2)];
const app = map('app', [1, 2]);

t.test('who serves a range beside this node, surely and perhaps', async (t) => {
  const cases: [string, Omit<SceneFacts, 'self' | 'members'>, boolean, boolean][] = [
    ['it serves', {}, true, true],
    ['it is in maintenance', { maintenance: [1, 2] }, false, false],
    ['it is not connected', { connected: [1] }, false, false],
    ['it is connected and did not answer in time', { words: { 2: undefined } }, false, true],
  ];
  for (const [what, scene, surely, perhaps] of cases) {
    const { http } = observed({ self: 1, members: two, ...scene }, desired(1, two));
    if (http.kind !== 'up') throw new Error('the scene is up');
    const range = '00000000-7fffffff';
    t.equal(servedElsewhere(app, range, node(1), http.server), surely, `${what}: surely`);
    t.equal(mayBeServedElsewhere(app, range, node(1), http.server), perhaps, `${what}: perhaps`);
  }
});
