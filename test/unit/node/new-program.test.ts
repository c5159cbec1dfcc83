import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { systemClock } from '../../../src/daemon/clock.ts';
import { pathsFor } from '../../../src/daemon/config/config.ts';
import { type ControlActions, ControlServer } from '../../../src/daemon/control/server.ts';
import type { Identity } from '../../../src/daemon/identity/identity.ts';
import { EMPTY_LOCAL_STATE } from '../../../src/daemon/local-state.ts';
import { Answers, type AnswersDependencies } from '../../../src/daemon/node/answers.ts';
import { KeptPrograms, type KeptProgramsDependencies } from '../../../src/daemon/node/kept-programs.ts';
import { look } from '../../../src/daemon/node/look.ts';
import { program } from '../../../src/daemon/node/programs.ts';
import { memberRows } from '../../../src/daemon/control/member-rows.ts';
import { AuditTrail } from '../../../src/daemon/audit/trail.ts';
import { DEFAULT_RECONCILER_OPTIONS, Reconciler } from '../../../src/daemon/reconciler/reconciler.ts';
import { until } from '../../support/until.ts';
import { runCli } from '../cli/captured-io.ts';
import { place } from '../cli/place.ts';
import { believed, configOf, EMPTY_MEMORY, scene } from './scenes.ts';

const read = (file: string): Promise<string> => readFile(file, 'utf8').catch(() => 'nobody');
const nothing = async (): Promise<void> => undefined;
/** What becomes of what is written; a disk that keeps something else is what rollback is for. */
let kept = (text: string): string => text;

/** A whole program in ten lines: a file that names the members. */
const greeting = (file: string) =>
  program({
    ...{ name: 'greeting', roles: ['app'], enabled: () => true },
    desired: ({ view }) => view.members.map(({ record }) => record.name).join(' and '),
    make: () => ({
      ...{ name: 'greeting', evidence: `cat ${file}`, close: nothing },
      observe: () => read(file),
      plan: (to: string, is: string) => (to === is ? [] : [{ kind: 'file', summary: `${is} → ${to}`, to }]),
      apply: async (changes, _signal, made) => {
        for (const each of changes) await writeFile(file, kept(each.to)).then(() => made(each));
      },
      rollback: { checkpoint: () => read(file), undo: (was) => writeFile(file, was) },
    }),
  });

/** A node as far as a program needs one, with the real reconciler, audit trail, control socket and command. */
async function nodeWith(root: string, programs: readonly ReturnType<typeof program>[]) {
  const paths = pathsFor('app', root);
  const config = configOf('app');
  let members = [believed('app1/app')];
  const now = () => look(scene(members, { config }), EMPTY_MEMORY);
  const audit = new AuditTrail(
    { file: join(root, 'audit.jsonl') },
    { clock: systemClock, announce: () => undefined, onProblem: () => undefined },
  );
  const reconciler = new Reconciler(
    { ...DEFAULT_RECONCILER_OPTIONS, quietMs: 5, minIntervalMs: 1, resyncMs: 600_000, backoffMinMs: 600_000 },
    {
      clock: systemClock,
      audit: (entry) => audit.append(entry),
    },
  );
  const keeper = new KeptPrograms(programs, {
    ...{ config, paths, reconciler, node: { look: now, turn: () => undefined } },
    ...({} as Pick<KeptProgramsDependencies, 'secrets' | 'last' | 'progress' | 'clock' | 'site'>),
  });
  const rows = () => memberRows({ ...now(), effective: now().view, view: now().scene.view, ...NO_ROSTER });
  const identity = { name: 'app1/app', role: 'app', roster: NO_ROSTER, warnings: [] } as unknown as Identity;
  const answers = new Answers(identity, {
    ...{ clock: systemClock, startedMs: 0, reconciler, programs: keeper },
    node: {
      config,
      phase: 'running',
      rows,
      refusedReload: undefined,
      get last() {
        return now();
      },
    },
    local: { state: EMPTY_LOCAL_STATE },
    checks: { node: 'up', verdicts: [] },
    ...{ disks: { findings: [] }, machine: { findings: [], restarts: [] } },
    ...{ metrics: NO_WARNINGS, notifier: NO_WARNINGS, rollout: NO_WARNINGS },
    ...({ driver: {}, transport: {} } as unknown as Pick<AnswersDependencies, 'driver' | 'transport'>),
  });
  const control = new ControlServer(
    { path: paths.controlSocket, role: 'app' },
    { trail: audit, actions: () => answers as unknown as ControlActions },
  );
  await keeper.start();
  await control.listen();
  return {
    audit,
    /** Another member comes: a look, and what follows from it. */
    joins: (name: string) => {
      members = [...members, believed(name)];
      keeper.follow(now(), [{ text: `${name}: new, alive`, subjects: [name] }]);
    },
    settled: () => until(() => reconciler.converged('greeting'), { what: 'the program is as it should be' }),
    failed: () =>
      until(() => reconciler.status().some(({ state }) => state === 'failing'), {
        what: 'the change failed',
      }),
    says: async (...words: string[]) => {
      const { out, err } = await runCli([...words, '--root', root]);
      return out + err;
    },
    close: async () => {
      await reconciler.close();
      await control.close();
      await audit.close();
    },
  };
}

const NO_WARNINGS = { warnings: [] };
const NO_ROSTER = { certificates: [], authorities: [], nowMs: 5000, rivals: () => [], rootChange: undefined };
t.test('a program of ten lines is all that a new plugin takes', async (t) => {
  const root = await place(t);
  const file = join(root, 'greeting');
  const node = await nodeWith(root, [greeting(file)]);
  t.teardown(() => node.close());

  await node.settled();
  t.equal(await read(file), 'app1/app', 'observed, planned, applied and verified');
  t.match(await node.says('plan'), /Nothing to change: greeting/);
  t.match(await node.says('status'), /greeting +converged/, 'shown in status');

  node.joins('app2/app');
  await node.settled();
  t.equal(await read(file), 'app1/app and app2/app', 'another view is another desired state');
  t.match(
    await node.says('explain', 'app2/app'),
    /greeting: app1\/app → app1\/app and app2\/app.*\n +because app2\/app: new, alive/,
    'shown in explain, with the reason',
  );

  kept = (text) => text.slice(0, 3);
  node.joins('app3/app');
  await node.failed();
  t.equal(await read(file), 'app1/app and app2/app', 'rolled back');
  t.match(node.audit.query().at(-1), { result: 'rolled-back', error: { code: 'change-did-not-hold' } });
  t.match(await node.says('plan'), /greeting +file +app1\/app and app2\/app → app1/, 'still planned');
  t.match(await node.says('status'), /greeting +failing/);
  t.match(await node.says('explain', 'app3/app'), /change-did-not-hold/);
});
