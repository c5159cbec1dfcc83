/**
 * The demo: a whole cluster on one machine, live in the terminal, or `--script`: the story from the first start to the
 * reboot of all machines, each step judged by HAProxy, the provider's router and CouchDB themselves.
 */
import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { FULL_SCREEN, redrawn } from '../../src/cli/screen.ts';
import { until } from '../support/until.ts';
import { Acts } from './acts.ts';
import { labWorld } from './lab-world.ts';
import { loopbackWorld, missingForLab } from './loopback-world.ts';
import { draw, KEYS } from './screen.ts';
import { type StepResult, storyOf, tell } from './story.ts';
import { svgOf } from './svg.ts';
import { type Visited, Visitor } from './visitor.ts';
import type { World } from './world.ts';

const HELP = `npm run demo [-- OPTIONS]

  --script     tell the whole story without keys and end; exit code 0 only if each step was seen
  --json       with --script: one JSON object a line instead of the table
  --picture F  start all, kill app2, write the screen to F as SVG, and end
  --loopback   without namespaces, systemd and BIRD, even as root
  --app N      app nodes at the start (default 3)
  --db N       db nodes at the start (default 3)

Keys in the live view: ${KEYS}
`;
const STARTING = 'starting: not everything serves yet';
const { values } = parseArgs({
  options: {
    script: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    picture: { type: 'string' },
    loopback: { type: 'boolean', default: false },
    app: { type: 'string', default: '3' },
    db: { type: 'string', default: '3' },
    help: { type: 'boolean', short: 'h', default: false },
  },
});
/** The steps of the story that lead to the picture: who registers at app2 signs in elsewhere when it is dead. */
const PICTURED: readonly string[] = ['a person registers at app2', 'app2 is killed'];
const startedMs = performance.now();
const seconds = (): string => ((performance.now() - startedMs) / 1000).toFixed(1).padStart(6);
const say = (text: string): void => void process.stderr.write(`${seconds()} s  ${text}\n`);

if (values.help) {
  process.stdout.write(HELP);
} else {
  process.exitCode = await main();
}

async function main(): Promise<number> {
  const sizes = { app: Number(values.app), db: Number(values.db), progress: say };
  const missing = values.loopback ? [] : await missingForLab();
  for (const each of missing) say(`not here: ${each}`);
  const loopback = values.loopback || missing.length > 0;
  if (missing.length > 0)
    say('so this runs the loopback variant: no machines of their own, no systemd, no BIRD');
  const world = await (loopback ? loopbackWorld(sizes) : labWorld(sizes)).catch((error: unknown) => {
    say(`✘ the cluster did not start: ${error instanceof Error ? error.message : String(error)}`);
    say('next: end what else keeps this machine busy, then run it again');
  });
  if (world === undefined) return 1;
  let ending: Promise<void> | undefined;
  const end = (): Promise<void> => (ending ??= world.close());
  process.once('SIGINT', () => void end().finally(() => process.exit(130)));
  process.once('SIGTERM', () => void end().finally(() => process.exit(143)));
  try {
    if (values.script) return await script(world);
    if (values.picture !== undefined) return await picture(world, values.picture);
    await live(world);
    return 0;
  } finally {
    await end();
  }
}

/** Writes the screen as it is once the cluster has taken a dead node out: the picture of the README. */
async function picture(world: World, file: string): Promise<number> {
  for (const step of storyOf(world).filter(({ title }, at) => at === 0 || PICTURED.includes(title))) {
    say(`▶ ${step.title}`);
    const { ok, failure } = await tell(step, world, (text) => say(`  ${text}`));
    if (ok) continue;
    say(`✘ ${failure}`);
    return 1;
  }
  const screen = draw(world, await world.look(), '', { columns: 118, rows: 30 });
  await writeFile(file, svgOf(screen));
  return 0;
}

async function script(world: World): Promise<number> {
  say(world.title);
  const results: VisitedStep[] = [];
  const story = storyOf(world);
  for (const step of story) {
    say(`▶ ${step.title}`);
    const before = (await world.look().catch(() => undefined))?.events.at(-1)?.id ?? 0;
    const visitor = new Visitor(() => world.visit());
    const told = await tell(step, world, (text) => say(`  ${text}`));
    const result = { ...told, client: await visitor.end() };
    results.push(result);
    const picture = await world.look().catch(() => undefined);
    for (const entry of (picture?.events ?? []).filter((each) => each.id > before).slice(-12)) {
      say(`  ${picture?.askedName}: ${entry.summary}`);
    }
    say(result.ok ? `✔ ${result.title}` : `✘ ${result.title}: ${result.failure}`);
    if (values.json) process.stdout.write(`${JSON.stringify(result)}\n`);
    if (result.ok) continue;
    process.stderr.write(`${await world.diagnose()}\n`);
    // What follows would only fail for the same reason.
    break;
  }
  const ok = results.length === story.length && results.every((result) => result.ok);
  if (!values.json) process.stdout.write(table(results));
  say(ok ? 'every step was seen' : 'not every step was seen');
  return ok ? 0 : 1;
}

type VisitedStep = StepResult & { readonly client: Visited };

function table(results: readonly VisitedStep[]): string {
  const columns = [
    ...(['members', 'haproxy', 'routes', 'couchdb', 'site', 'dns', 'tls', 'user', 'ports'] as const),
  ];
  const names = [...columns, 'gap', 'failed'].map((name) => name.toUpperCase().padStart(8));
  const head = `${'STEP'.padEnd(44)}${names.join('')}\n`;
  const rows = results.map((result) => {
    const cells = columns.map((name) => {
      const at = result.seen[name];
      return (at === undefined ? '–' : `${at.toFixed(1)} s`).padStart(8);
    });
    const { longestGap, failed, requests } = result.client;
    cells.push(`${longestGap.toFixed(1)} s`.padStart(8), `${failed}/${requests}`.padStart(8));
    return `${(result.ok ? '✔ ' : '✘ ') + result.title.padEnd(42)}${cells.join('')}\n`;
  });
  return (
    `\n${head}${rows.join('')}\nSeconds from the act until the program itself showed it. –: not part of ` +
    `the step.\nGAP: longest time without a good answer for a visitor of the site, who asks five times a second on ` +
    `new connections. FAILED: of his requests.\n`
  );
}

/** Redraws twice a second, acts on keys, until q. Without a terminal it prints one picture and ends. */
async function live(world: World): Promise<void> {
  const { stdin, stdout } = process;
  if (!stdin.isTTY || !stdout.isTTY) {
    const [first] = storyOf(world);
    if (first !== undefined) await tell(first, world, say);
    stdout.write(`${draw(world, await world.look(), '', { columns: 120, rows: 60 })}\n`);
    return;
  }
  const acts = new Acts(STARTING);
  // Made once: some of them ask, and the answer counts at a later look.
  const serving = storyOf(world)[0]?.expect(world) ?? [];
  let quit = false;
  let nextDb = 4;
  const act = (what: string, work: () => Promise<void>): void => acts.begin(what, work);
  const down = new Set<string>();
  const cut = new Set<string>();
  const toggle = (
    set: Set<string>,
    host: string,
    on: () => Promise<void>,
    off: () => Promise<void>,
  ): Promise<void> => {
    const work = set.has(host) ? off : on;
    return work().then(() => void (set.has(host) ? set.delete(host) : set.add(host)));
  };
  const keys: Record<string, () => void> = {
    j: () => act(`db${nextDb} joins`, () => world.join(`db${nextDb++}`, 'db')),
    k: () =>
      act(down.has('app2') ? 'app2 comes back' : 'app2 is killed', () =>
        toggle(
          down,
          'app2',
          () => world.kill('app2'),
          () => world.revive('app2'),
        ),
      ),
    c: () =>
      act(cut.has('db2') ? 'the link of db2 is mended' : 'db2 is cut off', () =>
        toggle(
          cut,
          'db2',
          () => world.cut('db2'),
          () => world.heal('db2'),
        ),
      ),
    l: () => {
      const last = world.hosts('db').at(-1) ?? '';
      act(`${last} leaves`, () => world.leave(last, (text) => (acts.note = text)));
    },
    r: () => act('all machines reboot', () => world.rebootAll()),
    s: () =>
      act('the story', async () => {
        for (const step of storyOf(world)) {
          const result = await tell(step, world, (text) => (acts.note = text));
          if (!result.ok) throw new Error(`${result.title}: ${result.failure}`);
          acts.note = `✔ ${result.title}`;
        }
      }),
    q: () => (quit = true),
    '\u0003': () => (quit = true),
  };
  stdin.setRawMode(true).resume().setEncoding('utf8');
  stdin.on('data', (key: string) => keys[key]?.());
  stdout.write(FULL_SCREEN.enter);
  try {
    await until(
      async () => {
        const picture = await world.look().catch(() => undefined);
        if (picture !== undefined) {
          if (acts.note === STARTING && serving.every(({ missing }) => missing(picture) === undefined))
            acts.note = 'everything serves: press a key';
          const text = draw(world, picture, acts.shown, { columns: stdout.columns, rows: stdout.rows });
          stdout.write(redrawn(text));
        }
        return quit;
      },
      { deadlineMs: Number.POSITIVE_INFINITY, everyMs: 500 },
    );
  } finally {
    stdin.setRawMode(false).pause();
    stdout.write(FULL_SCREEN.leave);
    say('taking everything away');
  }
}
