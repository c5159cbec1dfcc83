import t from 'tap';
import { Me, ProblemShape } from '../../../src/app/http/shapes.ts';
import type { Me as PageMe, ProblemShape as PageProblem } from '../../../src/web/shapes.ts';

/** The page has types of its own, so that a copy stands alone. The compiler refuses a line where they differ. */
const asPage = (me: Me, problem: ProblemShape): [PageMe, PageProblem] => [me, problem];

t.test('the page reads of the API what the API says', async (t) => {
  const me: PageMe = {
    account: 'a',
    email: 'a@b.example',
    roles: ['account'],
    quota: { bytes: 1, usedBytes: null },
  };
  const errors = [{ pointer: '/email', detail: 'wrong' }];
  const problem: PageProblem = { type: '/problems/x', status: 400, title: 'x', detail: 'y', errors };
  t.same(asPage(Me.parse(me), ProblemShape.parse(problem)), [me, problem], 'no field is unknown to the API');
});
