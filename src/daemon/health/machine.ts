import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { memoryStall, STALL_BEGINS } from '../../host/pressure.ts';
import type { HostFinding } from './host-finding.ts';
import type { Restarts, UnitRestarts } from './restarts.ts';

/** What this machine's record says of itself, for `members` and notifications; words of later versions are ignored. */
type MachineWord = 'private-link' | 'public-link' | 'memory' | 'restarts';

interface Watched {
  /** Undefined where the configuration names none. */
  readonly devices: Readonly<Record<'private' | 'public', string | undefined>>;
  /** Undefined where there is no systemd. */
  readonly restarts?: Pick<Restarts, 'look' | 'finding' | 'counts'>;
  /** Where sysfs is mounted. */
  readonly sys?: string;
}

interface MachineDependencies {
  readonly nowMs: () => number;
  /** Called when something has begun or ended. */
  readonly changed: (finding: HostFinding, began: boolean) => void;
}

/** Three small files: as often as a person could need it. */
const LOOK_MS = 2000;
/** A link that is renegotiated is away for a second or two. */
const LINK_DOWN_MS = 3000;
/** So that it is not reported again and again. */
const STALL_ENDS = STALL_BEGINS / 2;

/** The links of both devices, whether work waits for memory, and which units are restarted again and again. */
export class Machine {
  readonly #watched: Watched;
  readonly #dependencies: MachineDependencies;
  readonly #found = new Map<MachineWord, HostFinding>();
  readonly #downSinceMs = new Map<MachineWord, number>();
  #lastMs = Number.NEGATIVE_INFINITY;
  #looking: Promise<void> | undefined;

  constructor(watched: Watched, dependencies: MachineDependencies) {
    this.#watched = watched;
    this.#dependencies = dependencies;
  }

  get findings(): readonly HostFinding[] {
    return [...this.#found.values()];
  }

  /** Of the units of this node. */
  get restarts(): readonly UnitRestarts[] {
    return this.#watched.restarts?.counts ?? [];
  }

  /** For this node's record. */
  get tag(): string | undefined {
    return this.#found.size === 0 ? undefined : [...this.#found.keys()].sort().join(' ');
  }

  /** Once a second. Resolves when the present look has ended. */
  async look(): Promise<void> {
    const nowMs = this.#dependencies.nowMs();
    if (this.#looking === undefined && nowMs - this.#lastMs >= LOOK_MS) {
      this.#lastMs = nowMs;
      this.#looking = this.#look(nowMs).finally(() => (this.#looking = undefined));
    }
    await this.#looking;
  }

  async #look(nowMs: number): Promise<void> {
    const { devices, restarts, sys = '/sys' } = this.#watched;
    for (const which of ['private', 'public'] as const) {
      const device = devices[which];
      if (device !== undefined && device !== (which === 'public' ? devices.private : undefined))
        this.#link(which, device, await linkOf(device, sys), nowMs);
    }
    const stall = await memoryStall(join(sys, 'fs/cgroup')).catch(() => undefined);
    this.#memory(stall);
    await restarts?.look(nowMs);
    this.#set('restarts', restarts?.finding);
  }

  #link(which: 'private' | 'public', device: string, fault: string | undefined, nowMs: number): void {
    const word: MachineWord = `${which}-link`;
    if (fault === undefined) {
      this.#downSinceMs.delete(word);
      this.#set(word, undefined);
      return;
    }
    const sinceMs = this.#downSinceMs.get(word) ?? nowMs;
    this.#downSinceMs.set(word, sinceMs);
    if (nowMs - sinceMs < LINK_DOWN_MS) return;
    const lost = which === 'private' ? 'no other node reaches this one' : 'no visitor reaches this node';
    this.#set(word, {
      code: 'link-down',
      message: `the ${which} device ${device} ${fault}: ${lost}`,
      next: `ip link show ${device}; ip link set ${device} up; then ask the provider`,
      over: `the ${which} device has its link again`,
    });
  }

  /** @param stall percent of the last minute; undefined: the kernel does not measure it */
  #memory(stall: number | undefined): void {
    const least = this.#found.has('memory') ? STALL_ENDS : STALL_BEGINS;
    if (stall === undefined || stall < least) return this.#set('memory', undefined);
    this.#set('memory', {
      code: 'memory-pressure',
      message: `all work on this machine waited for memory in ${Math.round(stall)} % of the last minute`,
      next: 'find what uses it: ps -eo rss,comm --sort=-rss | head; then give the machine more memory',
      over: 'there is enough memory again',
    });
  }

  #set(word: MachineWord, finding: HostFinding | undefined): void {
    const before = this.#found.get(word);
    if (finding === undefined) this.#found.delete(word);
    else this.#found.set(word, finding);
    if (before === undefined && finding !== undefined) this.#dependencies.changed(finding, true);
    if (before !== undefined && finding === undefined) this.#dependencies.changed(before, false);
  }
}

/** @returns what is wrong with a device; undefined: nothing, or it cannot be seen here */
async function linkOf(device: string, sys: string): Promise<string | undefined> {
  const carrier = (name: string) => readFile(join(sys, 'class/net', name, 'carrier'), 'utf8');
  try {
    return (await carrier(device)).trim() === '1' ? undefined : 'has no link';
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // So answers a device that was set down.
    if (code === 'EINVAL') return 'is set down';
    // Every network namespace has the loopback: without it, another one's sysfs is mounted, or none.
    const seen = code === 'ENOENT' && (await carrier('lo').catch(() => undefined)) !== undefined;
    return seen ? 'does not exist' : undefined;
  }
}
