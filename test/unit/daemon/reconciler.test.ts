import { mock } from 'node:test';
import t from 'tap';
import type { NewAuditEntry } from '../../../src/daemon/audit/trail.ts';
import { systemClock } from '../../../src/daemon/clock.ts';
import { DEFAULT_RECONCILER_OPTIONS, Reconciler } from '../../../src/daemon/reconciler/reconciler.ts';
import { RunFailure, runPlugin } from '../../../src/daemon/reconciler/run.ts';
import {
  type PlannedChange,
  type Plugin,
  PluginError,
  type PluginReport,
} from '../../../src/plugins/contract.ts';
import { until } from '../../support/until.ts';

const options = {
  ...DEFAULT_RECONCILER_OPTIONS,
  quietMs: 5,
  maxQuietMs: 20,
  minIntervalMs: 1,
  resyncMs: 60_000,
  backoffMinMs: 10,
  backoffMaxMs: 40,
};

/** A program with one number as its whole state; each hook can be replaced. */
class Program implements Plugin<number, number, PlannedChange & { to: number }, number> {
  readonly name = 'program';
  readonly evidence = 'journalctl -u program';
  value = 0;
  applied: number[] = [];
  observations = 0;
  running = 0;
  mostAtOnce = 0;
  closed = 0;
  undone = 0;
  beforeApply: () => Promise<void> | void = () => undefined;
  keeps: (value: number) => number = (value) => value;
  changed: (what: string) => void = () => undefined;
  status?: (desired: number, observed: number) => PluginReport;
  retry?: () => void;

  async observe() {
    this.observations += 1;
    return this.value;
  }
  plan(desired: number, observed: number) {
    const summary = `${observed} → ${desired}`;
    const change: PlannedChange & { to: number } = { kind: 'set', summary, subjects: ['a/app'], to: desired };
    return desired === observed ? [] : [change];
  }
  async validate() {}
  readonly rollback = {
    checkpoint: async () => this.value,
    undo: async (before: number) => {
      this.undone += 1;
      this.value = before;
    },
  };
  async apply(
    changes: readonly (PlannedChange & { to: number })[],
    _signal: AbortSignal,
    made: (change: PlannedChange & { to: number }) => void,
  ) {
    this.running += 1;
    this.mostAtOnce = Math.max(this.mostAtOnce, this.running);
    try {
      await this.beforeApply();
      for (const change of changes) {
        this.value = this.keeps(change.to);
        this.applied.push(change.to);
        made(change);
      }
    } finally {
      this.running -= 1;
    }
  }
  async close() {
    this.closed += 1;
  }
  watch(changed: (what: string) => void) {
    this.changed = changed;
    return () => undefined;
  }
}
const refused = (code: string, outcome: 'retry' | 'terminal') =>
  new PluginError({ code, message: code, next: 'look', outcome });

const start = (
  t: { teardown(fn: () => unknown): unknown },
  desired: () => number | undefined,
  over = {},
  clock = systemClock,
) => {
  const program = new Program();
  const entries: NewAuditEntry[] = [];
  const reconciler = new Reconciler(
    { ...options, ...over },
    { clock, audit: (entry) => entries.push(entry) },
  );
  reconciler.add(program, desired);
  t.teardown(() => reconciler.close());
  return { program, entries, reconciler };
};

t.test('the desired state is made once, with one audit entry that gives the reason', async (t) => {
  const { program, entries, reconciler } = start(t, () => 7);
  await until(() => reconciler.converged());
  t.same(program.applied, [7]);
  t.match(entries, [
    { result: 'ok', trigger: 'start', changes: ['0 → 7'], subjects: ['a/app'], plugin: 'program' },
  ]);
  t.equal(entries.length, 1);
});

t.test('a trigger with nothing to do writes nothing', async (t) => {
  const { program, entries, reconciler } = start(t, () => 0);
  await until(() => reconciler.converged());
  reconciler.trigger('look');
  await until(() => program.observations >= 2 && reconciler.converged());
  t.same(program.applied, []);
  t.same(entries, []);
});

t.test('a desired state that is not known yet leaves the program alone', async (t) => {
  const { program, reconciler } = start(t, () => undefined);
  await until(() => reconciler.status()[0]?.runs === 1);
  t.equal(program.observations, 0);
});

t.test('a storm of triggers is few runs, and steady churn does not starve them', async (t) => {
  let nowMs = 0;
  mock.timers.enable({ apis: ['setTimeout'] });
  t.teardown(() => mock.timers.reset());
  let wanted = 0;
  const { program, reconciler } = start(t, () => wanted, {}, { ...systemClock, monotonicMs: () => nowMs });
  const pass = async (ms: number): Promise<void> => {
    nowMs += ms;
    mock.timers.tick(ms);
    await new Promise((resolve) => setImmediate(resolve));
  };
  for (let ms = 0; ms < 300; ms += 1) {
    wanted += 1;
    reconciler.trigger(`change ${wanted}`);
    await pass(1);
  }
  const { length } = program.applied;
  // Never quiet: a run is due 20 ms after the first trigger that the one before has not seen.
  t.ok(length >= 13 && length <= 15, `${length} runs in 300 ms with a trigger in each`);
  await pass(options.maxQuietMs);
  t.equal(program.value, wanted);
  t.equal(program.mostAtOnce, 1);
});

t.test('a single trigger waits for nothing, and what follows it soon is one more run', async (t) => {
  let nowMs = 0;
  mock.timers.enable({ apis: ['setTimeout'] });
  t.teardown(() => mock.timers.reset());
  let wanted = 1;
  const { program, reconciler } = start(t, () => wanted, {}, { ...systemClock, monotonicMs: () => nowMs });
  const pass = async (ms: number): Promise<void> => {
    nowMs += ms;
    mock.timers.tick(ms);
    for (let turns = 0; turns < 3; turns += 1) await new Promise((resolve) => setImmediate(resolve));
  };
  await pass(100);
  await pass(100);
  t.same(program.applied, [1]);
  wanted = 2;
  reconciler.trigger('news');
  // The same turn can have two reasons: the second must not put the run off.
  reconciler.trigger('more of the same');
  await pass(1);
  t.same(program.applied, [1, 2], 'at once');
  for (wanted = 3; wanted < 7; wanted += 1) {
    await pass(2);
    reconciler.trigger(`change ${wanted}`);
  }
  wanted = 7;
  await pass(options.quietMs - 1);
  t.same(program.applied, [1, 2], 'a burst waits for its end');
  await pass(1);
  t.same(program.applied, [1, 2, 7]);
});

t.test('a change whose verification fails is rolled back, audited once, and tried again', async (t) => {
  let broken = true;
  const { program, entries, reconciler } = start(t, () => 7);
  program.keeps = (value) => (broken ? value + 1 : value);
  await until(() => program.applied.length >= 3);
  t.equal(entries.filter((entry) => entry.result === 'rolled-back').length, 1);
  t.match(entries[0]?.error, { code: 'change-did-not-hold', next: /journalctl -u program/ });
  broken = false;
  await until(() => reconciler.converged());
  t.equal(program.value, 7);
  t.match(entries.at(-1), { result: 'ok' });
});

t.test('a terminal error stops the tries until what should be changes', async (t) => {
  let wanted = 7;
  const { program, reconciler } = start(t, () => wanted);
  program.beforeApply = () => {
    if (wanted === 7) throw refused('wrong-password', 'terminal');
  };
  await until(() => reconciler.status()[0]?.state === 'stopped');
  const { observations } = program;
  reconciler.trigger('look');
  await until(() => (reconciler.status()[0]?.runs ?? 0) >= 3);
  t.equal(program.observations, observations, 'not asked again');
  wanted = 8;
  reconciler.trigger('new password');
  await until(() => reconciler.converged());
  t.equal(program.value, 8);
});

t.test('a request of the operator starts a new try of the same', async (t) => {
  let locked = true;
  const { program, reconciler } = start(t, () => 7);
  program.beforeApply = () => {
    if (locked) throw refused('locked', 'terminal');
  };
  await until(() => reconciler.status()[0]?.state === 'stopped');
  // As CouchDB's plugin, which sends a refused password once.
  program.retry = () => (locked = false);
  reconciler.retryNow('operator');
  await until(() => reconciler.converged());
  t.equal(program.value, 7, 'the program is told to ask once more');
});

t.test('a watch starts a run at once, and the resync starts one without it', async (t) => {
  const { program, reconciler } = start(t, () => 7, { resyncMs: 50 });
  await until(() => reconciler.converged());
  program.value = 1;
  program.changed('edited by hand');
  await until(() => program.value === 7);
  program.value = 2;
  await until(() => program.value === 7);
  t.same(program.applied, [7, 7, 7]);
});

t.test('a run that never ends is aborted and reported', async (t) => {
  const { program, entries } = start(t, () => 7, { runTimeoutMs: 30 });
  program.observe = (...[signal]: unknown[]) =>
    new Promise((_, reject) => {
      const aborted = signal as AbortSignal;
      aborted.addEventListener('abort', () => reject(aborted.reason));
    });
  await until(() => entries.length > 0);
  t.match(entries[0]?.error, { code: 'plugin-timeout' });
});

t.test('plan only reads, and reports an error instead of throwing', async (t) => {
  const { program, reconciler } = start(t, () => 7, { quietMs: 100_000, maxQuietMs: 100_000 });
  t.match(await reconciler.plan(), [{ name: 'program', changes: [{ summary: '0 → 7' }] }]);
  t.equal(program.value, 0);
  program.observe = async () => {
    throw refused('no-socket', 'retry');
  };
  t.match(await reconciler.plan(), [{ name: 'program', error: { code: 'no-socket' } }]);
});

t.test('close ends a run, closes the plugin, and nothing runs afterwards', async (t) => {
  const { program, reconciler, entries } = start(t, () => 7);
  const gate = Promise.withResolvers<void>();
  program.beforeApply = () => gate.promise;
  await until(() => program.running === 1);
  const closing = reconciler.close();
  await new Promise((resolve) => setImmediate(resolve));
  t.equal(program.closed, 0, 'the run is waited for');
  gate.resolve();
  await closing;
  t.equal(program.closed, 1);
  t.equal(program.running, 0);
  t.ok(entries.length <= 1);
});

/** One run towards 7. */
async function ran(program: Program): Promise<{ made: number; failure?: RunFailure }> {
  try {
    const options = { signal: AbortSignal.timeout(5000), undoTimeoutMs: 1000 };
    return { made: (await runPlugin(program, 7, options)).made.length };
  } catch (error) {
    if (!(error instanceof RunFailure)) throw error;
    return { made: 0, failure: error };
  }
}

t.test('verify: a further step is no failure, a step that was made and is needed again is', async (t) => {
  let left: readonly PlannedChange[] = [];
  const outcomeOf = async (step: PlannedChange['step'], next: readonly PlannedChange[]): Promise<string> => {
    const program = new Program();
    left = next;
    program.plan = ((desired: number, observed: number) =>
      observed === desired
        ? left
        : [
            { kind: 'set', summary: 'set', to: desired, ...(step === undefined ? {} : { step }) },
          ]) as Program['plan'];
    const { made, failure } = await ran(program);
    const outcome =
      failure === undefined ? `made ${made}` : `${failure.reason.code}, undone: ${failure.undone}`;
    return `${outcome}, value ${program.value}`;
  };
  const failed = 'change-did-not-hold, undone: true, value 0';
  const again = { kind: 'set', summary: 'set' };
  t.equal(await outcomeOf(undefined, []), 'made 1, value 7');
  t.equal(await outcomeOf(undefined, [again]), failed);
  t.equal(
    await outcomeOf(undefined, [{ kind: 'other', summary: 'other' }]),
    failed,
    'no steps: nothing may be left',
  );
  t.equal(await outcomeOf('once', [{ kind: 'other', summary: 'other', step: 'once' }]), 'made 1, value 7');
  t.equal(await outcomeOf('once', [{ ...again, step: 'once' }]), failed);
  t.equal(await outcomeOf('repeats', [{ ...again, step: 'repeats' }]), 'made 1, value 7');
});

t.test('undo: what apply did not finish is undone, what waits for its program is kept', async (t) => {
  const run = async (error: PluginError): Promise<[Program, RunFailure]> => {
    const program = new Program();
    program.apply = async (changes, _signal, made) => {
      program.value = 3;
      for (const change of changes) made(change);
      throw error;
    };
    const { failure } = await ran(program);
    if (failure === undefined) throw new Error('it did not fail');
    return [program, failure];
  };
  const facts = { code: 'halfway', message: 'm', next: 'n', outcome: 'retry' } as const;
  const [undone, failure] = await run(new PluginError(facts));
  t.same([undone.value, undone.undone, failure.undone], [0, 1, true]);
  t.match(failure.reason, { code: 'halfway' });
  const [kept, waits] = await run(new PluginError({ ...facts, keepsChanges: true }));
  t.same([kept.value, kept.undone, waits.undone], [3, 0, false]);

  const stuck = new Program();
  stuck.keeps = () => 1;
  stuck.rollback.undo = async () => {
    throw refused('disk-full', 'retry');
  };
  const both = (await ran(stuck)).failure?.reason.message;
  t.match(both, /0 → 7|1 → 7/);
  t.match(both, /could not be restored: disk-full/);
});

t.test('an error of another room keeps its own code and next step', async (t) => {
  const cases: readonly (readonly [object, string, string])[] = [
    [{ code: 'disk-full', next: 'Free some space (df -h).' }, 'disk-full', 'Free some space (df -h).'],
    [{ code: 'ENOSPC' }, 'plugin-unexpected', 'report this with the journal around it'],
  ];
  for (const [more, code, next] of cases) {
    const program = new Program();
    program.beforeApply = () => {
      throw Object.assign(new Error('it could not be written'), more);
    };
    const { failure } = await ran(program);
    t.match(failure?.reason, { code, message: 'it could not be written', next, outcome: 'retry' });
  }
});

t.test('plan publishes no status, makes no change and ends no retry', async (t) => {
  const { program, reconciler, entries } = start(t, () => 7, { quietMs: 100_000, maxQuietMs: 100_000 });
  let looks = 0;
  program.status = () => {
    looks += 1;
    return { alarms: [] };
  };
  const before = reconciler.status();
  for (let times = 0; times < 3; times += 1) await reconciler.plan();
  t.same(reconciler.status(), before);
  t.same([program.applied, program.undone, entries, looks], [[], 0, [], 0]);
});

t.test('what was seen is in status, with its age', async (t) => {
  const { program, reconciler } = start(t, () => 0);
  program.status = (_desired, observed) => ({
    seen: `value ${observed}`,
    alarms: observed === 0 ? [] : [{ code: 'odd', message: 'm', next: 'n' }],
  });
  await until(() => reconciler.status()[0]?.seen === 'value 0');
  t.ok((reconciler.status()[0]?.seenAgoMs ?? -1) >= 0);
  t.same(reconciler.status()[0]?.alarms, []);
});

t.test('an alarm is one entry with its next step, however often it is seen', async (t) => {
  const { program, reconciler, entries } = start(t, () => 0);
  const alarms = [
    { code: 'odd', message: 'it is odd', next: 'make it even' },
    { code: 'late', message: 'it is late', next: 'wait' },
  ];
  let looks = 0;
  program.status = () => {
    looks += 1;
    return { alarms: looks < 3 ? alarms.slice(0, 1) : alarms };
  };
  for (let times = 1; times <= 5; times += 1) {
    reconciler.trigger('again');
    await until(() => looks >= times);
  }
  const announced = entries.filter(({ error }) => error !== undefined);
  t.match(announced, [
    { result: 'failed', plugin: program.name, error: alarms[0] },
    { result: 'failed', plugin: program.name, error: alarms[1] },
  ]);
  t.equal(announced.length, 2);
});

t.test('what a plugin waits for after a failure is not correct again before it is', async (t) => {
  const { program, entries, reconciler } = start(t, () => 1);
  const alarm = { code: 'far', message: 'no answer', next: 'wait' };
  let [waits, answers] = [false, false];
  const plan = program.plan.bind(program);
  program.plan = (desired, observed) => (waits ? [] : plan(desired, observed));
  program.status = () => ({ alarms: waits && !answers ? [alarm] : [] });
  program.beforeApply = () => {
    waits = true;
    throw refused('far', 'retry');
  };
  await until(() => entries.some(({ error }) => error?.code === 'far'));
  for (let run = 0; run < 3; run += 1) {
    const before = program.observations;
    reconciler.trigger('look');
    await until(() => program.observations > before && reconciler.converged());
  }
  t.same(
    entries.filter(({ summary }) => /correct again/.test(summary)),
    [],
  );
  answers = true;
  reconciler.trigger('look');
  await until(() => entries.some(({ summary }) => summary === 'program is correct again'));
});

t.test('a sign of life is given until the end, also while nothing is known to be wanted', async (t) => {
  const program = new Program();
  let beats = 0;
  const heartbeat = async (): Promise<void> => {
    beats += 1;
    throw new Error('nobody listens');
  };
  const reconciler = new Reconciler(options, { clock: systemClock, audit: () => undefined });
  reconciler.add(Object.assign(program, { heartbeat }), () => undefined);
  await until(() => beats >= 2);
  await reconciler.close();
  const last = beats;
  await new Promise((resolve) => setImmediate(resolve));
  t.equal(beats, last);
});

t.test(
  'a plugin that rolls nothing back says that a change failed, not that it was rolled back',
  async (t) => {
    const program = new Program();
    const entries: NewAuditEntry[] = [];
    const reconciler = new Reconciler(options, { clock: systemClock, audit: (entry) => entries.push(entry) });
    t.teardown(() => reconciler.close());
    program.keeps = (value) => value + 1;
    reconciler.add(Object.assign(program, { rollback: undefined }), () => 7);
    await until(() => entries.length > 0);
    t.match(entries, [{ result: 'failed', error: { code: 'change-did-not-hold' } }]);
    t.equal(program.undone, 0);
  },
);

t.test('the entry of several changes names three of them and counts the rest', async (t) => {
  const program = new Program();
  const many = (to: number, is: number) =>
    to === is ? [] : [1, 2, 3, 4, 5].map((step) => ({ kind: 'set', summary: `step ${step}`, to }));
  const entries: NewAuditEntry[] = [];
  const reconciler = new Reconciler(options, { clock: systemClock, audit: (entry) => entries.push(entry) });
  t.teardown(() => reconciler.close());
  reconciler.add(Object.assign(program, { plan: many }), () => 7);
  await until(() => entries.length > 0);
  t.equal(entries[0]?.summary, 'program: step 1; step 2; step 3; 2 more changes');
  t.equal(entries[0]?.changes?.length, 5);
});

t.test('the entry of a run has what was made, whatever was planned', async (t) => {
  const program = new Program();
  const stepTo = (to: number): PlannedChange & { to: number } => ({
    kind: 'set',
    summary: `step ${to}`,
    step: 'once',
    to,
  });
  const steps = [1, 2, 3, 4, 5].map(stepTo);
  const entries: NewAuditEntry[] = [];
  const reconciler = new Reconciler(options, { clock: systemClock, audit: (entry) => entries.push(entry) });
  t.teardown(() => reconciler.close());
  // Each run comes as far as two of what is left.
  const apply = program.apply.bind(program);
  reconciler.add(
    Object.assign(program, {
      plan: (_to: number, is: number) => steps.slice(is),
      apply: (...[changes, signal, made]: Parameters<Program['apply']>) =>
        apply(changes.slice(0, 2), signal, made),
    }),
    () => 5,
  );
  await until(() => program.value === 5 && entries.length >= 3);
  t.same(
    entries.map(({ summary, changes }) => [summary, changes?.length]),
    [
      ['program: step 1; step 2', 2],
      ['program: step 3; step 4', 2],
      ['program: step 5', 1],
    ],
  );
});
