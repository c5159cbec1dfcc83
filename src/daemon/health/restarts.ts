import { readlink } from 'node:fs/promises';
import { uptime } from 'node:os';
import { join } from 'node:path';
import * as z from 'zod';
import { runCommand } from '../../host/command.ts';
import { readIfPresent, replaceFile } from '../../host/files.ts';
import type { Config } from '../config/config.ts';
import type { HostFinding } from './host-finding.ts';

/** How often systemd has restarted a unit by itself since somebody started it last (NRestarts). */
export interface UnitRestarts {
  readonly unit: string;
  readonly restarts: number;
}

interface RestartsOptions {
  readonly units: () => readonly string[];
  /** Keeps the times over a restart of the daemon: its own restarts count too. */
  readonly file: string;
  /** Default: systemctl; undefined: it does not answer. */
  readonly ask?: (units: readonly string[]) => Promise<readonly UnitRestarts[] | undefined>;
  /** Where systemd names the present invocation of each unit. */
  readonly invocations?: string;
  /** Default: since the boot of this machine. */
  readonly uptimeSeconds?: () => number;
}

/** A link for each unit is cheap. systemctl, a process of 20 ms, is started only after a change of one. */
const LOOK_MS = 5000;
/** A later systemd may keep the links elsewhere. */
const ASK_ANYWAY_MS = 600_000;
const WINDOW_SECONDS = 600;
/** A crash, and another one, happen; a third one in ten minutes will not be the last. */
const TOO_MANY = 3;
/** Of each unit: more say nothing more. */
const MOST_TIMES = 100;
const SYSTEMCTL_MS = 5000;

const stored = z.record(
  z.string(),
  z.object({ count: z.number(), times: z.array(z.number()).max(MOST_TIMES) }),
);
type Seen = z.infer<typeof stored>;

/** The units of a node whose end costs it something. systemctl knows which of them are there. */
export function countedUnits({ role, floating, services }: Config): string[] {
  const own = [`bornemisza@${role}.service`, `bornemisza-haproxy@${role}.service`];
  if (role === 'db') return [...own, 'couchdb.service'];
  const bird = floating.mode === 'bgp' || floating.mode === 'ranked' ? ['bird.service'] : [];
  const deadman = bird.length > 0 || floating.mode === 'layer2' ? ['bornemisza-deadman.service'] : [];
  const watched = services.flatMap(({ unit }) => unit ?? []);
  return [...new Set([...own, ...bird, ...deadman, 'bornemisza-app.service', ...watched])];
}

/** Counts what systemd restarts, and finds what it restarts again and again. */
export class Restarts {
  readonly #options: RestartsOptions;
  #counts: readonly UnitRestarts[] = [];
  #seen: Seen | undefined;
  #mark = '';
  #lookedMs = Number.NEGATIVE_INFINITY;
  #askedMs = Number.NEGATIVE_INFINITY;

  constructor(options: RestartsOptions) {
    this.#options = options;
  }

  get counts(): readonly UnitRestarts[] {
    return this.#counts;
  }

  async look(nowMs: number): Promise<void> {
    if (nowMs - this.#lookedMs < LOOK_MS) return;
    this.#lookedMs = nowMs;
    const units = this.#options.units();
    const mark = await this.#invocations(units);
    if (mark === this.#mark && nowMs - this.#askedMs < ASK_ANYWAY_MS) return;
    const counts = await (this.#options.ask ?? askSystemd)(units).catch(() => undefined);
    if (counts === undefined) return;
    this.#askedMs = nowMs;
    this.#mark = mark;
    this.#counts = counts;
    await this.#take(counts);
  }

  /** What is restarted again and again, at present. */
  get finding(): HostFinding | undefined {
    const since = this.#nowSeconds() - WINDOW_SECONDS;
    const often = Object.entries(this.#seen ?? {})
      .map(([unit, { times }]) => ({ unit, count: times.filter((at) => at > since).length }))
      .filter(({ count }) => count >= TOO_MANY);
    const [first] = often;
    if (first === undefined) return undefined;
    const words = often.map(({ unit, count }) => `${unit} ${count} times`).join(' and ');
    return {
      code: 'unit-restarts',
      message: `systemd restarted ${words} in the last ten minutes: it ends again and again`,
      next: `journalctl -u ${first.unit} -n 50`,
      over: 'no unit was restarted three times in the last ten minutes',
    };
  }

  async #take(counts: readonly UnitRestarts[]): Promise<void> {
    const [before, now] = [this.#seen ?? (await this.#restored()), this.#nowSeconds()];
    this.#seen = Object.fromEntries(
      counts.map(({ unit, restarts }) => {
        const { count = restarts, times = [] } = Object.hasOwn(before, unit) ? (before[unit] ?? {}) : {};
        // An operator who starts it sets systemd's count to 0.
        const more = Math.min(MOST_TIMES, Math.max(0, restarts - count));
        const recent = times.filter((at) => at > now - WINDOW_SECONDS && at <= now);
        const all = [...recent, ...Array<number>(more).fill(now)].slice(-MOST_TIMES);
        return [unit, { count: restarts, times: all }];
      }),
    );
    await replaceFile(this.#options.file, JSON.stringify(this.#seen), { mode: 0o640 }).catch(() => undefined);
  }

  /** In /run, so it is of this boot. */
  async #restored(): Promise<Seen> {
    try {
      return stored.parse(JSON.parse((await readIfPresent(this.#options.file)) ?? '{}'));
    } catch {
      return {};
    }
  }

  async #invocations(units: readonly string[]): Promise<string> {
    const { invocations = '/run/systemd/units' } = this.#options;
    const ids = await Promise.all(
      units.map((unit) => readlink(join(invocations, `invocation:${unit}`)).catch(() => '')),
    );
    return units.map((unit, at) => `${unit} ${ids[at]}`).join('\n');
  }

  #nowSeconds(): number {
    return (this.#options.uptimeSeconds ?? uptime)();
  }
}

async function askSystemd(units: readonly string[]): Promise<readonly UnitRestarts[] | undefined> {
  const asked = ['show', '--property=Id,LoadState,NRestarts', '--', ...units];
  const { code, stdout } = await runCommand('systemctl', asked, { timeoutMs: SYSTEMCTL_MS });
  return code === 0 ? restartsIn(stdout) : undefined;
}

/** Reads `systemctl show`; units that are not installed are left out. */
export function restartsIn(shown: string): UnitRestarts[] {
  return shown.split('\n\n').flatMap((block) => {
    const of = (key: string): string => new RegExp(`^${key}=(.*)$`, 'm').exec(block)?.[1] ?? '';
    const restarts = of('NRestarts');
    return of('LoadState') === 'loaded' && /^\d+$/.test(restarts)
      ? [{ unit: of('Id'), restarts: Number(restarts) }]
      : [];
  });
}
