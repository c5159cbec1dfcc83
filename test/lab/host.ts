import type { ChildProcess } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { childrenOf } from '../support/children.ts';
import { slowness } from '../support/patience.ts';
import { WITHOUT_TAP } from '../support/with-us.ts';
import { privateAddress, publicAddress } from './addresses.ts';
import { networks, portOf, routerPort, type Direction, type Fabric, type Network } from './fabric.ts';
import type { HostFile, Layers } from './layers.ts';
import { inNamespace, namespaceOf, spawnInside, type LabPlace } from './namespace.ts';
import { must, poll, ProgramError, run, type Result, type RunOptions } from './process.ts';
import { askHttp, askLine } from './socket.ts';

export type Role = 'app' | 'db';

export type HostOptions = {
  readonly name: string;
  readonly index: number;
  readonly roles: readonly Role[];
  readonly diskMegabytes: number;
  /** Put in place before the first boot. */
  readonly files: Readonly<Record<string, HostFile>>;
  /** Units that start at every boot, the first included. */
  readonly enable: readonly string[];
};

export type ExecOptions = RunOptions & {
  /** Run as this user with all its groups. Default root. */
  readonly user?: string;
};

/** Which device of a host a fault is for: private is eth1, public is eth0. */
export type FaultDevice = Network | 'both';

export type UnitState = {
  /** active, inactive, failed, activating, deactivating, reloading */
  readonly active: string;
  /** running, dead, exited, auto-restart, … */
  readonly sub: string;
  /** 0 when there is none. In the host's own numbering. */
  readonly mainPid: number;
  readonly restarts: number;
  /** What the service last told systemd about itself. */
  readonly status: string;
  /** Why it last ended: success, exit-code, signal, watchdog, timeout, oom-kill, … */
  readonly result: string;
};

/** glibc's SIGRTMIN is 34; systemd(1): +4 powers off, +5 reboots. */
const powerOffSignal = 38;
const rebootSignal = 39;

/** Longest stop of a unit of ours is 30 s. */
const shutdownTimeoutMs = 45_000;
const bootTimeoutMs = 30_000;

const searchPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** One machine: eth0 public, eth1 private, files of its own, a real systemd as its process 1. */
export class Host {
  readonly name: string;
  readonly roles: readonly Role[];
  readonly privateAddress: string;
  readonly publicAddress: string;
  readonly #place: LabPlace;
  readonly #fabric: Fabric;
  readonly #layers: Layers;
  readonly #options: HostOptions;
  readonly #directory: string;
  readonly #cgroup: string;
  readonly #portIndexOf: (host: string) => number;
  #machine: ChildProcess | undefined;
  #pid: number | undefined;

  /** @param dependencies.indexOf number of another host of the lab by its name; throws when there is none */
  constructor(
    options: HostOptions,
    dependencies: {
      readonly place: LabPlace;
      readonly fabric: Fabric;
      readonly layers: Layers;
      readonly indexOf: (host: string) => number;
    },
  ) {
    this.name = options.name;
    this.roles = options.roles;
    this.privateAddress = privateAddress(options.index);
    this.publicAddress = publicAddress(options.index);
    this.#options = options;
    this.#place = dependencies.place;
    this.#fabric = dependencies.fabric;
    this.#layers = dependencies.layers;
    this.#portIndexOf = dependencies.indexOf;
    this.#directory = `${dependencies.place.directory}/hosts/${options.name}`;
    this.#cgroup = `${dependencies.place.cgroup}/${options.name}`;
  }

  /** Name of its network namespace, for tools such as `ip netns exec` and tcpdump. */
  get namespace(): string {
    return namespaceOf(this.#place, this.name);
  }

  get running(): boolean {
    return this.#pid !== undefined;
  }

  /** Process 1 of the host, in this machine's numbering. */
  get pid(): number {
    if (this.#pid === undefined) throw new Error(`${this.name} is switched off`);
    return this.#pid;
  }

  /** Makes the disk and puts the first files on it. Once, before the first boot. */
  async create(): Promise<void> {
    const disk = `${this.#directory}/disk`;
    await mkdir(disk, { recursive: true });
    await mkdir(`${this.#directory}/root`);
    await must(['mount', '-t', 'tmpfs', '-o', `mode=0755,size=${this.#options.diskMegabytes}m`, 'lab', disk]);
    await mkdir(`${disk}/upper`);
    await mkdir(`${disk}/work`);
    for (const [path, file] of Object.entries(this.#options.files)) {
      await this.#layers.place(`${disk}/upper`, path, file);
    }
    await this.#layers.enable(`${disk}/upper`, this.#options.enable);
    const binds = this.#layers.binds.map(({ source, target }) => `${source} ${target}\n`);
    await writeFile(`${this.#directory}/binds`, binds.join(''));
  }

  /**
   * Switches the host on and waits until systemd has done what it starts by itself. Returns `running` or `degraded`.
   */
  async boot(): Promise<string> {
    if (this.running) throw new Error(`${this.name} is already switched on`);
    await this.#clearCgroup();
    await this.#fabric.attach(this.name, this.#options.index);
    await this.#switchOn();
    const reached = await this.exec(['systemctl', 'is-system-running', '--wait'], {
      timeoutMs: bootTimeoutMs,
    });
    return reached.stdout.trim();
  }

  /** Orderly: services are stopped, the disk is kept, /run and /tmp and all network state are not. Then boots again. */
  async reboot(): Promise<string> {
    await this.#shutDown(rebootSignal);
    return this.boot();
  }

  /** Orderly stop; the host stays off until `boot()`. */
  async powerOff(): Promise<void> {
    await this.#shutDown(powerOffSignal);
  }

  /**
   * The plug is pulled: nobody gets a last packet. What was written to the disk is kept, unsynced writes included,
   * which is kinder than a real power cut. The host stays off until `boot()`.
   */
  async powerCut(): Promise<void> {
    const ended = this.#ended();
    // The namespace's kernel would still say goodbye on TCP for the dead programs.
    await this.#fabric.disconnect(this.#options.index);
    await writeFile(`${this.#cgroup}/cgroup.kill`, '1');
    await ended;
  }

  /** Runs a program in the host. A non-zero exit code is a result; only being switched off throws. */
  async exec(argv: readonly string[], options: ExecOptions = {}): Promise<Result> {
    const { user, env = {}, timeoutMs = 30_000, stdin } = options;
    const seconds = ((timeoutMs * slowness()) / 1000).toFixed(3);
    const as =
      user === undefined ? [] : ['setpriv', `--reuid=${user}`, `--regid=${user}`, '--init-groups', '--'];
    return run(
      [
        'nsenter',
        `--target=${this.pid}`,
        '--all',
        '--',
        // Killing nsenter alone would leave the program behind in the host.
        'timeout',
        '--foreground',
        '--signal=KILL',
        seconds,
        ...WITHOUT_TAP,
        ...as,
        ...argv,
      ],
      {
        ...(stdin === undefined ? {} : { stdin }),
        timeoutMs: timeoutMs + 5_000,
        env: { PATH: searchPath, HOME: '/root', LANG: 'C.UTF-8', ...env },
      },
    );
  }

  /** Like `exec`, and throws unless the exit code is 0. Returns standard output. */
  async must(argv: readonly string[], options: ExecOptions = {}): Promise<string> {
    const result = await this.exec(argv, options);
    if (result.code !== 0) throw new ProgramError([`${this.name}:`, ...argv], result);
    return result.stdout;
  }

  /** GET `path` at a Unix socket of the host, or POST with a body; the answer's body, whatever the status. */
  async askHttp(socket: string, path: string, body?: object): Promise<string> {
    return askHttp(this.#inside(socket), path, body);
  }

  /** One command to a Unix socket of the host, and all that is answered. */
  async askLine(socket: string, command: string): Promise<string> {
    return askLine(this.#inside(socket), command);
  }

  /** A file that no link leads to, read without a process; {@link readFile} follows the host's links. */
  readPlain(path: string): Promise<string> {
    return readFile(this.#inside(path), 'utf8');
  }

  readFile(path: string): Promise<string> {
    return this.must(['cat', '--', path]);
  }

  /** Writes a file in the running host, atomically, with its directory when that is missing. */
  async writeFile(path: string, file: HostFile): Promise<void> {
    const {
      content,
      mode = 0o644,
      owner = 'root',
      group,
    } = typeof file === 'string' ? { content: file } : file;
    const script =
      'mkdir -p "${1%/*}" && cat >"$1.lab" && chown "$2" "$1.lab" && chmod "$3" "$1.lab" && mv -T "$1.lab" "$1"';
    await this.must(['sh', '-c', script, 'sh', path, `${owner}:${group ?? owner}`, mode.toString(8)], {
      stdin: content,
    });
  }

  async start(unit: string): Promise<void> {
    await this.must(['systemctl', 'start', unit]);
  }

  async stop(unit: string): Promise<void> {
    await this.must(['systemctl', 'stop', unit], { timeoutMs: shutdownTimeoutMs });
  }

  async restart(unit: string): Promise<void> {
    await this.must(['systemctl', 'restart', unit], { timeoutMs: shutdownTimeoutMs });
  }

  async reload(unit: string): Promise<void> {
    await this.must(['systemctl', 'reload', unit]);
  }

  /** From now on at every boot; `--now` style: started as well. */
  async enable(unit: string): Promise<void> {
    await this.must(['systemctl', 'enable', '--now', unit]);
  }

  async disable(unit: string): Promise<void> {
    await this.must(['systemctl', 'disable', '--now', unit], { timeoutMs: shutdownTimeoutMs });
  }

  /** Until the next boot nothing starts it, Restart= included; what runs goes on. */
  async mask(unit: string): Promise<void> {
    await this.must(['systemctl', 'mask', '--runtime', unit]);
  }

  async unmask(unit: string): Promise<void> {
    await this.must(['systemctl', 'unmask', '--runtime', unit]);
  }

  async unit(unit: string): Promise<UnitState> {
    const text = await this.must([
      'systemctl',
      'show',
      '--property=ActiveState,SubState,MainPID,NRestarts,StatusText,Result',
      unit,
    ]);
    const of = new Map(
      text.split('\n').map((line) => [line.replace(/=.*/s, ''), line.replace(/^[^=]*=/, '')]),
    );
    return {
      active: of.get('ActiveState') ?? '',
      sub: of.get('SubState') ?? '',
      mainPid: Number(of.get('MainPID') ?? 0),
      restarts: Number(of.get('NRestarts') ?? 0),
      status: of.get('StatusText') ?? '',
      result: of.get('Result') ?? '',
    };
  }

  /** Waits until a unit looks as wanted; throws with how it looks instead, and the end of its journal. */
  async waitForUnit(
    unit: string,
    wanted: (state: UnitState) => boolean,
    timeoutMs = 10_000,
  ): Promise<UnitState> {
    let last: UnitState | undefined;
    try {
      return await poll(
        () => `${unit} on ${this.name}; it is ${JSON.stringify(last)}`,
        async () => {
          last = await this.unit(unit);
          return wanted(last) ? last : undefined;
        },
        { timeoutMs, everyMs: 150 },
      );
    } catch (error) {
      const tail = (await this.journal(unit)).split('\n').slice(-20).join('\n');
      throw new Error(`${(error as Error).message}\n${tail}`, { cause: error });
    }
  }

  /** The journal of a unit, or of the whole host, this boot's and earlier ones', one line an entry. */
  journal(unit?: string): Promise<string> {
    const of = unit === undefined ? [] : [`--unit=${unit}`];
    return this.must(['journalctl', '--no-pager', '--quiet', '--output=short-precise', ...of]);
  }

  /** The same as objects with all their fields, oldest first; further arguments go to journalctl. */
  async journalEntries(unit: string, ...more: readonly string[]): Promise<Record<string, string>[]> {
    const text = await this.must([
      'journalctl',
      '--no-pager',
      '--quiet',
      '--output=json',
      `--unit=${unit}`,
      ...more,
    ]);
    return text
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as Record<string, string>);
  }

  /** Sends a signal to every process of a unit, or with `main` to its main process only. */
  async kill(unit: string, signal: NodeJS.Signals = 'SIGKILL', whom: 'all' | 'main' = 'all'): Promise<void> {
    await this.must(['systemctl', 'kill', `--kill-whom=${whom}`, `--signal=${signal}`, unit]);
  }

  /**
   * Processes of a unit in this machine's numbering, for a signal whose moment counts: {@link kill} starts three
   * processes on its way.
   */
  async pidsOf(unit: string): Promise<number[]> {
    const text = await readFile(`${await this.#groupOf(unit)}/cgroup.procs`, 'utf8');
    return text.split('\n').filter(Boolean).map(Number);
  }

  /** Writes a file that is there, in place and without a process, so that its moment is known. Not through links. */
  writePlain(path: string, content: string): Promise<void> {
    return writeFile(this.#inside(path), content);
  }

  /**
   * Stops a unit's processes, or without a unit the whole host, dead in their tracks. TCP still acknowledges: see
   * `cut`.
   */
  async freeze(unit?: string): Promise<void> {
    await this.#freezer(unit, true);
  }

  async thaw(unit?: string): Promise<void> {
    await this.#freezer(unit, false);
  }

  /**
   * Frames vanish without a sign. `in`: those to this host, `out`: those from it. With `peer` (another host's name, or
   * `router` on the public device) only those exchanged with that one.
   */
  async cut(
    fault: { readonly device?: FaultDevice; readonly direction?: Direction; readonly peer?: string } = {},
  ): Promise<void> {
    for (const network of networksOf(fault.device)) {
      const peer = fault.peer === undefined ? undefined : this.#peerPort(network, fault.peer);
      await this.#fabric.cut(this.#port(network), fault.direction ?? 'both', peer);
    }
  }

  /** Frames arrive this much later, each way, and each by up to `jitterMs` more. */
  async delay(delayMs: number, device: FaultDevice = 'both', jitterMs = 0): Promise<void> {
    for (const network of networksOf(device))
      await this.#fabric.delay(network, this.#port(network), delayMs, jitterMs);
  }

  /** This share of the frames is lost, each way. */
  async drop(percent: number, device: FaultDevice = 'both'): Promise<void> {
    for (const network of networksOf(device)) await this.#fabric.drop(this.#port(network), percent);
  }

  /** The cable is pulled: the device loses its carrier. */
  async unplug(device: FaultDevice = 'both'): Promise<void> {
    for (const network of networksOf(device)) await this.#fabric.plug(this.#port(network), false);
  }

  /** Ends every network fault of this host: cuts, delay, loss, pulled cables. */
  async heal(device: FaultDevice = 'both'): Promise<void> {
    for (const network of networksOf(device)) await this.#fabric.heal(network, this.#port(network));
  }

  /** Fills the file system that holds a directory to its last byte. */
  async fillDisk(directory = '/var/lib'): Promise<void> {
    const filler = fillerIn(directory);
    await this.exec([
      'sh',
      '-c',
      'fallocate -l "$(df --output=avail -B1 "$1" | tail -1)" "$2"; exec cat /dev/zero >>"$2"',
      'sh',
      directory,
      filler,
    ]);
    const available = (await this.must(['df', '--output=avail', '-B1', directory])).split('\n')[1]?.trim();
    if (available !== '0') throw new Error(`${this.name}: ${available} bytes are still free in ${directory}`);
  }

  async freeDisk(directory = '/var/lib'): Promise<void> {
    await this.must(['rm', '-f', fillerIn(directory)]);
  }

  async #switchOn(): Promise<void> {
    const console = createWriteStream(`${this.#directory}/console.log`, { flags: 'a' });
    await new Promise((resolve) => console.once('open', resolve));
    const isolate = [
      'unshare',
      '--mount',
      '--pid',
      '--fork',
      '--cgroup',
      '--uts',
      '--ipc',
      '--kill-child',
      '--',
    ];
    const script = fileURLToPath(new URL('boot.sh', import.meta.url));
    const boot = ['sh', script, this.#directory, this.#layers.lower, this.name];
    const argv = inNamespace(this.namespace, [...isolate, ...boot]);
    const machine = spawnInside(this.#cgroup, argv, ['ignore', console, console]);
    console.end();
    this.#machine = machine;
    machine.on('exit', () => {
      if (this.#machine !== machine) return;
      this.#machine = undefined;
      this.#pid = undefined;
    });
    const log = `${this.#directory}/console.log`;
    const systemd = await poll(
      `systemd on ${this.name}; see ${log}`,
      async () => {
        if (machine.exitCode !== null)
          throw new Error(`${this.name} did not come up: ${await readFile(log, 'utf8')}`);
        return systemdUnder(machine.pid ?? 0);
      },
      { timeoutMs: bootTimeoutMs, everyMs: 10 },
    );
    this.#pid = systemd;
    await writeFile(`${this.#directory}/pid`, `${systemd}\n`);
  }

  async #shutDown(signal: number): Promise<void> {
    const ended = this.#ended();
    process.kill(this.pid, signal);
    await ended;
  }

  /** Resolves when the host is off; throws when that takes too long. */
  #ended(): Promise<true> {
    return poll(`${this.name} to switch off`, () => (this.running ? undefined : true), {
      timeoutMs: shutdownTimeoutMs,
      everyMs: 5,
    });
  }

  /** systemd leaves its groups behind when it goes; the next one wants an empty tree, and one that is not frozen. */
  async #clearCgroup(): Promise<void> {
    await mkdir(this.#cgroup, { recursive: true });
    await writeFile(`${this.#cgroup}/cgroup.freeze`, '0');
    await run(['find', this.#cgroup, '-mindepth', '1', '-depth', '-type', 'd', '-exec', 'rmdir', '{}', '+']);
  }

  async #freezer(unit: string | undefined, frozen: boolean): Promise<void> {
    const group = unit === undefined ? this.#cgroup : await this.#groupOf(unit);
    await writeFile(`${group}/cgroup.freeze`, frozen ? '1' : '0');
    const wanted = `frozen ${frozen ? 1 : 0}`;
    await poll(`${group} to be ${wanted}`, async () =>
      (await readFile(`${group}/cgroup.events`, 'utf8')).includes(wanted) ? true : undefined,
    );
  }

  async #groupOf(unit: string): Promise<string> {
    const show = ['systemctl', 'show', '--property=ControlGroup', '--value', unit];
    const path = (await this.must(show)).trim();
    if (path === '') throw new Error(`${this.name}: ${unit} has no processes`);
    return this.#cgroup + path;
  }

  /** A path of the host as this machine sees it. */
  #inside(path: string): string {
    return `/proc/${this.pid}/root${path}`;
  }

  #port(network: Network): string {
    return portOf(network, this.#options.index);
  }

  #peerPort(network: Network, peer: string): string {
    if (peer === 'router') return routerPort;
    return portOf(network, this.#portIndexOf(peer));
  }
}

const networksOf = (device: FaultDevice = 'both'): readonly Network[] =>
  device === 'both' ? networks : [device];
const fillerIn = (directory: string): string => `${directory}/.lab-filler`;

/** The child of `unshare --fork`, once it has become systemd and answers systemctl. */
async function systemdUnder(unshare: number): Promise<number | undefined> {
  try {
    const [child, ...others] = await childrenOf(unshare);
    if (child === undefined || others.length > 0) return undefined;
    if ((await readFile(`/proc/${child}/comm`, 'utf8')).trim() !== 'systemd') return undefined;
    const sockets = await readFile(`/proc/${child}/net/unix`, 'utf8');
    return sockets.includes('/run/systemd/private') ? child : undefined;
  } catch {
    return undefined;
  }
}
