import * as fc from 'fast-check';
import t from 'tap';
import { OPTIONS, Tellers } from '../unit/notification/tellers.ts';

/** Who tells what, over random clusters, delays, orders of looking, events, deaths and failing senders. */

const NAMES = ['app1/app', 'app2/app', 'app3/app', 'db1/db', 'db2/db'];
const TAKEN_OVER_MS = OPTIONS.intervalMs + 60_000;

/** A cluster whose nodes look in another order each second, and hear each other after up to 4 s. */
const cluster = fc
  .record({ nodes: fc.integer({ min: 1, max: NAMES.length }), seed: fc.nat() })
  .map(({ nodes, seed }) => {
    const names = NAMES.slice(0, nodes);
    let state = seed;
    /** Numbers below a bound, by a linear congruence: the same for the same seed, as shrinking needs it. */
    const random = (below: number): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
      return (state >>> 8) % below;
    };
    const delays = new Map(
      names.flatMap((from) => names.map((to) => [`${from} ${to}`, random(4000)] as const)),
    );
    const order = (all: readonly string[]): string[] =>
      all
        .map((name) => [name, random(1000)] as const)
        .sort(([, one], [, other]) => one - other)
        .map(([name]) => name);
    /** Made again for each run: fast-check runs a case several times when it shrinks it. */
    const start = (): Tellers => {
      state = seed;
      return new Tellers(names, (from, to) => delays.get(`${from} ${to}`) ?? 0);
    };
    return { names, order, start };
  });

const seconds = (max: number): fc.Arbitrary<number> => fc.integer({ min: 1, max });
const event = fc.record({
  atS: seconds(600),
  /** Undefined: it lasts to the end. */
  forS: fc.option(seconds(1200), { nil: undefined }),
});

t.test('without deaths exactly one node sends each event, and its end', async (t) => {
  await t.resolves(
    fc.assert(
      fc.asyncProperty(cluster, fc.array(event, { minLength: 1, maxLength: 12 }), async (world, events) => {
        const { start, order, names } = world;
        const tellers = start();
        for (let nowS = 0; nowS < 2000; nowS += 1) {
          for (const [at, { atS, forS }] of events.entries()) {
            if (nowS === atS) tellers.begins(`event ${at}`);
            if (forS !== undefined && nowS === atS + forS) tellers.ends(`event ${at}`);
          }
          tellers.pass(1000, order);
        }
        tellers.pass(2 * TAKEN_OVER_MS, order);
        for (const [at, { forS }] of events.entries()) {
          const states = tellers.tellings(`event ${at}`).map((each) => each.split(' ')[0]);
          const told = states.join(' ');
          const lasted = forS === undefined || forS * 1000 > OPTIONS.waitMs + 1000;
          const right =
            forS === undefined
              ? ['began']
              : lasted
                ? ['began ended', 'passed']
                : // It may have gone along with another's message.
                  ['', 'passed', 'began ended'];
          if (!right.includes(told)) throw new Error(`event ${at} of ${forS} s was told as "${told}"`);
        }
        if (tellers.sent.some(({ by }) => by !== names[0])) throw new Error('another than the first told');
      }),
      { numRuns: 12 },
    ),
  );
});

const trouble = fc.record({
  atS: seconds(900),
  who: fc.nat(NAMES.length - 1),
  what: fc.constantFrom('dies' as const, 'returns' as const, 'cannot send' as const, 'can send' as const),
});

t.test('whichever node dies or cannot send, some node sends a lasting event', async (t) => {
  await t.resolves(
    fc.assert(
      fc.asyncProperty(
        cluster,
        fc.array(event, { minLength: 1, maxLength: 8 }),
        fc.array(trouble, { maxLength: 15 }),
        async ({ start, order, names }, events, troubles) => {
          const tellers = start();
          const dead = new Set<string>();
          const mute = new Set<string>();
          for (let nowS = 0; nowS < 1000; nowS += 1) {
            for (const [at, { atS }] of events.entries()) if (nowS === atS) tellers.begins(`event ${at}`);
            for (const { who, what } of troubles.filter(({ atS }) => atS === nowS)) {
              const name = names[who % names.length] ?? '';
              if (what === 'dies' && !dead.has(name)) tellers.dies(dead.add(name) && name);
              if (what === 'returns' && dead.delete(name)) tellers.returns(name);
              if (what === 'cannot send') tellers.cannotSend(mute.add(name) && name);
              if (what === 'can send' && mute.delete(name)) tellers.cannotSend(name, false);
            }
            tellers.pass(1000, order);
          }
          // One is left that can, whatever happened before: the last in order, so that everybody else is waited for.
          const last = names.at(-1) ?? '';
          if (dead.has(last)) tellers.returns(last);
          tellers.cannotSend(last, false);
          tellers.pass((names.length + 2) * TAKEN_OVER_MS, order);
          for (const at of events.keys()) {
            const began = tellers.tellings(`event ${at}`);
            if (began.length === 0) throw new Error(`event ${at} was told by nobody`);
            // A teller that dies before its word is heard is the one reason for a second telling.
            const deaths = troubles.filter(({ what }) => what === 'dies').length;
            if (began.length > 1 + deaths) throw new Error(`event ${at} was told ${began.length} times`);
          }
        },
      ),
      { numRuns: 12 },
    ),
  );
});
