import { createHash } from 'node:crypto';
import { chmod, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { DbHaproxy, PeerServer } from '../../../src/plugins/haproxy/desired.ts';
import { HaproxyPlugin } from '../../../src/plugins/haproxy/plugin.ts';
import { IDLE_CLOSE, OPTIONAL_LINES, refusedLines } from '../../../src/plugins/haproxy/optional.ts';
import { runPlugin } from '../../../src/daemon/reconciler/run.ts';
import type { Plugin } from '../../../src/plugins/contract.ts';
import {
  type HaproxyChange,
  type HaproxyObserved,
  planHaproxy,
  type Running,
} from '../../../src/plugins/haproxy/plan.ts';
import type { Rendered } from '../../../src/plugins/haproxy/rendered.ts';
import { render } from '../../../src/plugins/haproxy/render.ts';
import type { ServerState } from '../../../src/plugins/haproxy/runtime.ts';
import { app, db, layout, noSite, peer, runningAs } from './haproxy-cases.ts';

const digest = (text: string): string => createHash('sha256').update(text).digest('hex');

const rendered = (...servers: PeerServer[]): Rendered =>
  render(app({ databases: { ...app().databases, servers } }), layout);

const nothing: HaproxyObserved = {
  files: new Map(),
  running: undefined,
  refused: new Set(),
  site: noSite,
  ipv6: false,
};

function observed(files: Rendered, running: Running | undefined): HaproxyObserved {
  return {
    ...nothing,
    files: new Map(files.files.map(({ name, content }) => [name, digest(content)])),
    running,
  };
}

/** What is planned when the files are right and the process is `running`. */
const plan = (wanted: Rendered, running: Running): string[] =>
  planHaproxy(wanted, observed(wanted, running), digest).map(({ summary }) => summary);

const change = (running: Running, name: string, changes: Partial<ServerState>): Running => ({
  ...running,
  servers: running.servers.map((server) =>
    `${server.backend}/${server.name}` === name ? { ...server, ...changes } : server,
  ),
});

t.test('whether clients may create and delete databases', async (t) => {
  const plugin = new HaproxyPlugin({
    instance: 'db',
    directory: layout.directory,
    runDirectory: '/run/x/app',
  });
  const refused = db({ databases: { given: false, why: 'not connected: db3/db' } });
  const [asGiven, asRefused] = [db(), refused].map((desired) => render(desired, layout)) as [
    Rendered,
    Rendered,
  ];
  const summaries = (desired: DbHaproxy, is: Rendered, running = runningAs(is)): string[] =>
    plugin.plan(desired, observed(is, running)).map(({ summary }) => summary);
  const about = db({ databases: { given: false, why: 'not connected: db3/db', subjects: ['db3/db'] } });
  const planned = plugin.plan(about, observed(asGiven, runningAs(asGiven)));
  const state = planned.find((each) => each.kind === 'server-state');
  t.same(state?.subjects, ['db3/db'], 'so that `explain db3` finds it');
  t.same(summaries(refused, asGiven), [
    'haproxy.cfg: rewritten',
    'permissions/databases: ready → maint (creating and deleting databases is refused: not connected: db3/db)',
  ]);
  t.same(summaries(db(), asRefused), [
    'haproxy.cfg: rewritten',
    'permissions/databases: maint → ready (all db nodes are connected and agree)',
  ]);
  t.same(
    summaries(refused, asRefused, change(runningAs(asRefused), 'permissions/databases', { maint: false })),
    [
      'permissions/databases: ready → maint (creating and deleting databases is refused: not connected: db3/db)',
    ],
    'switched on by hand',
  );

  const unknown = db({ databases: undefined });
  t.same(summaries(unknown, asGiven), [], 'a daemon that has just started leaves it');
  t.same(summaries(unknown, asRefused), [], 'either way');
  const [file] = plugin.plan(unknown, nothing).slice(-2);
  t.match(file, { kind: 'file', name: 'haproxy.cfg', content: / no-check disabled\n/ });
});

t.test('no difference: nothing to do', async (t) => {
  const wanted = rendered(peer('db1'), peer('db2', 'maint'), peer('db3', 'drain'));
  t.same(plan(wanted, runningAs(wanted)), []);
});

t.test('what differs, and what is done about it', async (t) => {
  const wanted = rendered(
    peer('db1'),
    peer('db2', 'maint', 'left the cluster'),
    peer('db3', 'drain', 'is leaving'),
  );
  const right = runningAs(wanted);
  const cases: [string, Running, string[]][] = [
    [
      'put in maintenance by hand',
      change(right, 'db_nodes/db1', { maint: true }),
      ['db_nodes/db1: maint → ready (alive and up)'],
    ],
    [
      'drained by hand',
      change(right, 'db_nodes/db1', { drain: true }),
      ['db_nodes/db1: drain → ready (alive and up)'],
    ],
    [
      'made ready by hand',
      change(right, 'db_nodes/db2', { maint: false }),
      ['db_nodes/db2: ready → maint (left the cluster)'],
    ],
    [
      'no longer draining',
      change(right, 'db_nodes/db3', { drain: false }),
      ['db_nodes/db3: ready → drain (is leaving)'],
    ],
    [
      'another address',
      change(right, 'db_nodes/db1', { address: '10.9.9.9' }),
      ['db_nodes/db1: 10.9.9.9:6984 → 10.0.0.1:6984'],
    ],
    [
      'another port',
      change(right, 'db_nodes/db1', { port: 1 }),
      ['db_nodes/db1: 10.0.0.1:1 → 10.0.0.1:6984'],
    ],
    [
      'checks off',
      change(right, 'db_nodes/db1', { checked: false }),
      ['db_nodes/db1: health check was disabled, enabled again'],
    ],
    [
      'another weight',
      change(right, 'db_nodes/db1', { fullWeight: false }),
      ['db_nodes/db1: weight was changed, restored'],
    ],
    [
      'local server in maintenance',
      change(right, 'local_api/_local', { maint: true }),
      ['local_api/_local: maint → ready (runs on this node)'],
    ],
    ['its check fails: HAProxy’s own matter', change(right, 'db_nodes/db1', { up: false }), []],
    [
      'deleted',
      { ...right, servers: right.servers.filter(({ name }) => name !== 'db1') },
      [
        'db_nodes/db1: added as ready (alive and up)',
        'db_nodes.unwatched/db1: added as maint (alive and up)',
        'db_nodes.panic/db1: added as ready (alive and up)',
        'db_nodes.watch/db1: added as ready (whether its host answers)',
      ],
    ],
    [
      'one too many',
      {
        ...right,
        servers: [...right.servers, { ...right.servers[0]!, backend: 'db_nodes', name: 'db9', maint: false }],
      },
      ['db_nodes/db9: removed (not a member)'],
    ],
    [
      'one too many that rests in maintenance with connections',
      {
        ...right,
        servers: [...right.servers, { ...right.servers[0]!, backend: 'db_nodes', name: 'db9', maint: true }],
        busy: new Set(['db_nodes/db9']),
      },
      [],
    ],
    [
      'one too many that rests in maintenance, and its last connection has ended',
      {
        ...right,
        servers: [...right.servers, { ...right.servers[0]!, backend: 'db_nodes', name: 'db9', maint: true }],
      },
      ['db_nodes/db9: deleted (its last connection ended)'],
    ],
    [
      'a closed frontend',
      { ...right, frontends: new Map([...right.frontends, ['edge', false]]) },
      ['frontend edge: closed → open'],
    ],
    [
      'a frontend that was shut down',
      { ...right, frontends: new Map([...right.frontends].filter(([name]) => name !== 'edge')) },
      ['reload: frontend edge was shut down'],
    ],
    ['another structure', { ...right, structure: 'other' }, ['reload: the structure changed']],
    ['not ours', { ...right, structure: '' }, ['reload: it runs a configuration that is not ours']],
    [
      'the local server is gone',
      { ...right, servers: right.servers.filter(({ name }) => name !== '_local') },
      ['reload: server local_api/_local is gone'],
    ],
    ['a serial too many', { ...right, revoked: ['AB'] }, ['certificate AB: no longer refused']],
  ];
  for (const [what, running, expected] of cases) t.same(plan(wanted, running), expected, what);
});

t.test('a silent host gets nothing new, and loses what it has when its daemon is dead too', async (t) => {
  const wanted = (duty: PeerServer['duty'], silent = true) =>
    rendered({ ...peer('db1', duty, 'site is up there'), silent }, peer('db2'));
  const right = runningAs(rendered(peer('db1'), peer('db2')));
  const of = (to: Rendered, from: Running) =>
    planHaproxy(to, observed(to, from), digest).filter(({ kind }) => kind !== 'file');
  const silent = of(wanted('ready'), right);
  t.same(
    silent.map(({ summary }) => summary),
    [
      'db_nodes/db1: ready → drain (its host does not answer)',
      'db_nodes.panic/db1: ready → drain (its host does not answer)',
    ],
    'it may have paused: open requests stay, and its checks go on',
  );
  t.match(silent, [{ cut: false }, { cut: false }]);
  t.equal(
    wanted('ready').files.find(({ name }) => name === 'haproxy.cfg')?.content,
    wanted('ready', false).files.find(({ name }) => name === 'haproxy.cfg')?.content,
    'a reload begins without it, and no file is checked for it',
  );
  const drained = right.servers.map((each) =>
    each.name === 'db1' && /^db_nodes(\.panic)?$/.test(each.backend) ? { ...each, drain: true } : each,
  );
  const dead = of(wanted('out-when-down'), { ...right, servers: drained });
  t.match(
    dead.find(({ summary }) => summary.startsWith('db_nodes/db1')),
    {
      summary: 'db_nodes/db1: drain → maint (its host does not answer)',
      cut: true,
    },
  );
  t.match(
    dead.map(({ summary }) => summary),
    [/^db_nodes\.unwatched\/db1: maint → ready/, /^db_nodes\/db1/, /^db_nodes\.panic\/db1/],
    'the second check decides when the silence is over',
  );
  for (const duty of ['drain', 'maint'] as const)
    t.same(of(wanted(duty), right).length, of(wanted(duty, false), right).length, `${duty} stays`);
});

t.test('a HAProxy that does not offer `add server` learns of a new server by a reload', async (t) => {
  const wanted = rendered(peer('db1'), peer('db2'));
  const before = runningAs(rendered(peer('db1')));
  const changes = (addsServers: boolean) =>
    planHaproxy(wanted, observed(wanted, { ...before, addsServers }), digest).map(({ kind }) => kind);
  t.same(changes(false), ['reload']);
  t.same(changes(true), ['server-add', 'server-add', 'server-add', 'server-add']);
});

t.test('and deletes none: a former member rests in maintenance until a reload forgets it', async (t) => {
  const wanted = rendered(peer('db1'));
  const before = runningAs(rendered(peer('db1'), peer('db2')));
  const resting = before.servers.map((each) => (each.name === 'db2' ? { ...each, maint: true } : each));
  const changes = (addsServers: boolean, servers = before.servers) =>
    planHaproxy(wanted, observed(wanted, { ...before, addsServers, servers }), digest).map((change) =>
      change.kind === 'server-remove' ? [change.kind, change.deletes] : [change.kind],
    );
  // Its second check rests already.
  t.same(new Set(changes(true).map(String)), new Set(['server-remove,true', 'server-delete']));
  t.same(new Set(changes(false).map(String)), new Set(['server-remove,false']));
  t.same(new Set(changes(true, resting).map(String)), new Set(['server-delete']));
  t.same(changes(false, resting), []);
  const back = rendered(peer('db1'), peer('db2'));
  const kinds = planHaproxy(
    back,
    observed(back, { ...before, addsServers: false, servers: resting }),
    digest,
  ).map(({ kind }) => kind);
  t.same(new Set(kinds), new Set(['server-state']), 'one that comes back needs no reload');
});

t.test('a new certificate of the site is given to the running process', async (t) => {
  const pem = (word: string): string =>
    `-----BEGIN CERTIFICATE-----\n${Buffer.from(word).toString('base64')}\n-----END CERTIFICATE-----\n`;
  const showing = (edge: string | undefined) => {
    const { certificates } = app();
    return render(app({ certificates: { ...certificates, edge } }), layout);
  };
  const [former, wanted] = [showing(pem('former')), showing(pem('next'))];
  const shown = ({ site }: Rendered) => ({ file: '/var/x/edge-00.pem', sha1: site?.sha1 ?? '' });
  const right = runningAs(wanted, { site: shown(wanted) });
  const otherChain = showing(`${pem('next')}${pem('an issuer')}`);
  type Case = readonly [
    what: string,
    to: Rendered,
    files: Rendered,
    running: Running,
    kinds: readonly string[],
  ];
  const cases: readonly Case[] = [
    ['it shows the right one', wanted, wanted, right, []],
    ['a renewal', wanted, former, runningAs(former, { site: shown(former) }), ['file', 'file', 'site']],
    [
      'a renewal whose files were written',
      wanted,
      wanted,
      runningAs(former, { site: shown(former) }),
      ['site'],
    ],
    ['another chain', otherChain, wanted, right, ['file', 'file', 'site']],
    ['the first one', wanted, showing(undefined), runningAs(showing(undefined)), ['file', 'file', 'reload']],
    ['none any more', showing(undefined), wanted, right, ['file', 'reload']],
    ['a HAProxy that does not say', wanted, former, runningAs(former), ['file', 'file', 'reload']],
    ['and has loaded it', wanted, wanted, runningAs(wanted), []],
  ];
  for (const [what, to, files, running, kinds] of cases)
    t.same(
      planHaproxy(to, observed(files, running), digest).map(({ kind }) => kind),
      kinds,
      what,
    );
  const given = planHaproxy(wanted, observed(former, runningAs(former, { site: shown(former) })), digest);
  t.notMatch(given.map(({ summary }) => summary).join(), 'BEGIN', 'nothing of it is in a summary');
});

t.test('dead by membership alone', async (t) => {
  const wanted = rendered(peer('db1', 'out-when-down', 'its daemon is dead'), peer('db2'));
  const alive = runningAs(rendered(peer('db1'), peer('db2')));
  const watched = runningAs(wanted);
  const cases: [string, Running, string[]][] = [
    [
      'the second check begins, and the server stays',
      alive,
      [
        'db_nodes.unwatched/db1: maint → ready (its daemon is dead)',
        'db_nodes.panic/db1: ready → maint (its daemon is dead)',
      ],
    ],
    ['both pass: it stays', watched, []],
    [
      'the first fails, the second passes: HAProxy’s own matter',
      change(watched, 'db_nodes/db1', { up: false }),
      [],
    ],
    [
      'the second fails: out',
      change(watched, 'db_nodes.unwatched/db1', { up: false }),
      ['db_nodes/db1: ready → maint (its daemon is dead, and its check fails)'],
    ],
    [
      'out and the second fails: stays out',
      change(change(watched, 'db_nodes.unwatched/db1', { up: false }), 'db_nodes/db1', { maint: true }),
      [],
    ],
    [
      'out and the second passes: back',
      change(watched, 'db_nodes/db1', { maint: true }),
      ['db_nodes/db1: maint → ready (its daemon is dead, but its check passes)'],
    ],
    [
      'an old verdict of a check that was off counts for nothing',
      change(alive, 'db_nodes.unwatched/db1', { up: false }),
      [
        'db_nodes.unwatched/db1: maint → ready (its daemon is dead)',
        'db_nodes.panic/db1: ready → maint (its daemon is dead)',
      ],
    ],
  ];
  for (const [what, running, expected] of cases) t.same(plan(wanted, running), expected, what);
});

t.test('a check that ends during a change brings no server back that the change took out', async (t) => {
  const wanted = rendered(peer('db1', 'out-when-down'), peer('db2', 'out-when-down'), peer('db3'));
  let running = change(runningAs(wanted), 'db_nodes.unwatched/db1', { up: false });
  let undone = 0;
  const program: Plugin<undefined, HaproxyObserved, HaproxyChange, undefined> = {
    name: 'haproxy',
    evidence: 'journalctl',
    observe: async () => observed(wanted, running),
    plan: (_desired, seen) => planHaproxy(wanted, seen, digest),
    apply: async (changes, _signal, made) => {
      for (const each of changes) {
        if (each.kind === 'server-state')
          running = change(running, `${each.backend}/${each.name}`, { maint: each.admin === 'maint' });
        made(each);
      }
      running = change(running, 'db_nodes.unwatched/db2', { up: false });
    },
    rollback: { checkpoint: async () => undefined, undo: async () => void (undone += 1) },
    close: async () => undefined,
  };
  const options = { signal: AbortSignal.timeout(5000), undoTimeoutMs: 1000 };
  for (const name of ['db1', 'db2']) {
    const { made } = await runPlugin(program, undefined, options);
    t.match(
      made.map(({ summary }) => summary),
      [new RegExp(`^db_nodes/${name}: ready → maint`)],
    );
  }
  t.equal(undone, 0);
});

t.test('additions come before removals: a backend is never empty in between', async (t) => {
  const wanted = rendered(peer('db1', 'maint', 'out'), peer('db2'), peer('db3'));
  const kinds = planHaproxy(
    wanted,
    observed(wanted, change(runningAs(rendered(peer('db1'), peer('db2', 'maint'))), 'x', {})),
    digest,
  )
    .filter((each) => 'admin' in each)
    .map((each) => `${each.kind} ${'admin' in each ? each.admin : ''}`);
  t.same(kinds.slice(-1), ['server-state maint']);
  t.ok(kinds.indexOf('server-add ready') < kinds.indexOf('server-state ready'));
});

t.test('files: only what differs, and the file of a HAProxy that is not running waits for it', async (t) => {
  const wanted = rendered(peer('db1'));
  const stale = { ...observed(wanted, runningAs(wanted)), files: new Map([['haproxy.cfg', 'other']]) };
  t.match(
    planHaproxy(wanted, stale, digest).map(({ summary }) => summary),
    [/^node-.*written/, /^ca-.*written/, 'revoked.list: written', 'haproxy.cfg: rewritten'],
  );
  t.match(
    planHaproxy(wanted, observed(wanted, undefined), digest).map(({ kind }) => kind),
    ['start'],
  );
});

t.test('a revocation is sent to the process and the holder’s sessions are cut', async (t) => {
  const revoked = [{ serialHex: 'ab12', address: '10.0.0.9' }];
  const wanted = render(app({ revoked }), layout);
  t.same(plan(wanted, runningAs(wanted, { revoked: [] })), [
    'certificate AB12: refused from now on, sessions from 10.0.0.9 are cut',
  ]);
});

t.test(
  'the process learns which certificates stay good before it learns that their authority is out',
  async (t) => {
    const known = 'F'.repeat(64);
    const wanted = render(app({ revokedAuthorities: ['AbCdEfGh'], knownCertificates: [known] }), layout);
    t.same(plan(wanted, runningAs(wanted, { revoked: [] })), [
      `certificate +${known}: accepted although its issuer was removed`,
      'certificates by authority AbCdEfGh: refused from now on',
    ]);
    const none = render(app(), layout);
    t.same(plan(none, runningAs(none, { revoked: ['AbCdEfGh', `+${known}`] })), [
      'certificates by authority AbCdEfGh: no longer refused',
      `certificate +${known}: no longer known`,
    ]);
  },
);

t.test('an optional line that HAProxy refuses is left out, and coming back it is a reload', async (t) => {
  const [full, without] = [rendered(peer('db1')), render(app(), layout, new Set(OPTIONAL_LINES))];
  const text = (of: Rendered) => of.files.find(({ name }) => name === 'haproxy.cfg')?.content ?? '';
  for (const line of OPTIONAL_LINES) {
    t.match(text(full), `  ${line}\n`);
    t.notMatch(text(without), line);
  }
  t.not(full.structure, without.structure);
});

t.test('each optional line is proved alone, and nothing is left of the proofs', async (t) => {
  const scripts = { takes: 'exit 0', old: '! grep -q idle-close "$3"', refuses: 'exit 1' };
  const programs = Object.fromEntries(
    Object.entries(scripts).map(([name, body]) => [name, `#!/bin/sh\n${body}\n`]),
  );
  const directory = t.testdir({ ...programs, proofs: {} });
  const refusedBy = async (program: string) => {
    const refused = await refusedLines(program, join(directory, 'proofs'), AbortSignal.timeout(60_000));
    return refused && [...refused];
  };
  for (const name of Object.keys(programs)) await chmod(join(directory, name), 0o755);
  t.same(await refusedBy(join(directory, 'takes')), []);
  t.same(await refusedBy(join(directory, 'old')), [IDLE_CLOSE], 'the one that it does not know');
  t.same(await refusedBy(join(directory, 'refuses')), OPTIONAL_LINES);
  t.equal(await refusedBy(join(directory, 'absent')), undefined, 'nobody to ask');
  t.same(await readdir(join(directory, 'proofs')), []);
});

t.test('no summary holds a secret', async (t) => {
  const wanted = rendered(peer('db1'));
  const changes = planHaproxy(wanted, nothing, digest);
  t.notMatch(changes.map(({ summary }) => summary).join(), /BEGIN/);
});
