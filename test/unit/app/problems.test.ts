import t from 'tap';
import { PROBLEMS, Problem, problemAnswer, type ProblemCode } from '../../../src/app/http/problems.ts';
import { languageOf } from '../../../src/app/languages.ts';
import { passwordText } from '../../../src/app/password-texts.ts';

const codes = Object.keys(PROBLEMS) as ProblemCode[];
const asking = (language?: string) => languageOf({ req: { header: () => language } });

t.test('a problem is answered in the language of the browser', async (t) => {
  for (const code of codes) {
    const [english, german] = [
      problemAnswer(new Problem(code), 'en'),
      problemAnswer(new Problem(code), 'de'),
    ];
    t.equal(german.headers.get('content-language'), 'de');
    const [one, other] = (await Promise.all([english.json(), german.json()])) as { title: string }[];
    t.ok(one?.title && other?.title && one.title !== other.title, `${code}: ${other?.title}`);
  }
  const detail = passwordText('too-short', 12);
  const answer = problemAnswer(
    new Problem('password-unfit', { detail, errors: [{ pointer: '/password', detail }] }),
    'de',
  );
  t.match(await answer.json(), {
    type: '/problems/password-unfit',
    title: 'Wählen Sie ein anderes Passwort.',
    detail: 'Dieses Passwort ist zu kurz. Verwenden Sie mindestens 12 Zeichen.',
    errors: [{ detail: 'Dieses Passwort ist zu kurz. Verwenden Sie mindestens 12 Zeichen.' }],
  });
});

t.test('a detail for developers stays as it is', async (t) => {
  const answer = problemAnswer(new Problem('not-allowed', { detail: 'A design document.' }), 'de');
  t.match(await answer.json(), { title: 'Das ist nicht erlaubt.', detail: 'A design document.' });
});

t.test('the first language that there are texts for counts', async (t) => {
  for (const [wanted, language] of [
    ['de-AT,de;q=0.9,en;q=0.8', 'de'],
    ['fr, de;q=0.7', 'de'],
    ['en-GB,de', 'en'],
    ['DE', 'de'],
    ['fr', 'en'],
    ['', 'en'],
    [undefined, 'en'],
  ] as const)
    t.equal(asking(wanted), language, String(wanted));
});
