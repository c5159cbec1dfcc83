import t from 'tap';
import { newRevision } from '../../standin/couchdb/store/revision.ts';

t.test('revisions are the ones that a real CouchDB 3.5 gave', async (t) => {
  const cases: [string, Parameters<typeof newRevision>, string][] = [
    ['an empty first one', [false, 0, undefined, {}], '967a00dff5e02add41819138abb3284d'],
    ['its deletion', [true, 1, '967a00dff5e02add41819138abb3284d', {}], 'eec205a9d413992850a6e32678485900'],
    [
      'an edit over the deletion',
      [false, 2, 'eec205a9d413992850a6e32678485900', {}],
      '5570e8bbb34412db757c2df4bfa1099b',
    ],
    ['a number', [false, 0, undefined, { v: 1 }], '7a7e4b29f3af401e69b6f86e4c26b727'],
    [
      'a flag',
      [false, 1, '967a00dff5e02add41819138abb3284d', { decom: true }],
      'be83fe917bbf0ea59f5de0aa02ea7e58',
    ],
    [
      'a larger number and a text',
      [false, 0, undefined, { v: 1, pad: 'x'.repeat(200) }],
      'b672e241ddb9e2ff7e0b629baf58b6b1',
    ],
  ];
  for (const [what, args, revision] of cases) t.equal(newRevision(...args), revision, what);
});
