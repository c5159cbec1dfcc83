import { connect } from 'node:net';
import { PluginError, type PluginErrorFacts } from '../contract.ts';

export interface AskOptions {
  /** The unit behind the socket, for messages. */
  readonly unit: string;
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number;
  /** Lines that belong to the command; none of them is empty. May be secret: no error quotes it. */
  readonly payload?: string | undefined;
}

/** 500 servers are 100 kB; a longer answer is not from HAProxy. */
const MAX_ANSWER_BYTES = 8 * 1024 * 1024;

/**
 * Gives one command to a stats or master socket and returns the answer, trimmed. HAProxy closes after it.
 *
 * @throws PluginError `haproxy-not-running` when nobody listens, `haproxy-silent` when no answer ends in time
 */
export async function ask(socketPath: string, command: string, options: AskOptions): Promise<string> {
  return (await exchange(socketPath, single(command), options)).trim();
}

/**
 * Several commands on one connection: on a busy host each connection waits for its turn, on both sides.
 *
 * @returns the answers, each trimmed
 * @throws PluginError as {@link ask}
 */
export async function askAll(
  socketPath: string,
  commands: readonly string[],
  options: AskOptions,
): Promise<string[]> {
  const answers = answersIn(await exchange(socketPath, commands.map(single).join(';'), options));
  if (answers.length === commands.length) return answers;
  // One of the answers has an empty line itself.
  const each: string[] = [];
  for (const command of commands) each.push(await ask(socketPath, command, options));
  return each;
}

/** An empty line ends each answer (management guide, 9.3). */
export function answersIn(text: string): string[] {
  const answers: string[] = [];
  let lines: string[] = [];
  for (const line of text.split('\n').slice(0, -1)) {
    if (line !== '') {
      lines.push(line);
      continue;
    }
    answers.push(lines.join('\n').trim());
    lines = [];
  }
  return answers;
}

/** One line, one command: values were checked when they were rendered, so this is a bug, not an input. */
function single(command: string): string {
  if (/[\n\r;]/.test(command)) throw new Error(`not a single command: ${JSON.stringify(command)}`);
  return command;
}

function exchange(
  socketPath: string,
  command: string,
  { unit, signal, timeoutMs = 2000, payload }: AskOptions,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const socket = connect(socketPath);
    const fail = (error: unknown): void => {
      socket.destroy();
      reject(socketError(socketPath, unit, error));
    };
    const timer = setTimeout(
      () => fail(new Error(`no answer to \`${command}\` within ${timeoutMs} ms`)),
      timeoutMs,
    );
    const abort = (): void => fail(new Error('the daemon is stopping'));
    signal?.addEventListener('abort', abort, { once: true });
    socket.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > MAX_ANSWER_BYTES) fail(new Error(`more than ${MAX_ANSWER_BYTES} bytes`));
      else chunks.push(chunk);
    });
    socket.on('error', fail);
    socket.on('close', () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
      resolve(Buffer.concat(chunks).toString('utf8'));
    });
    // The client side is half-closed at once: the master answers a reload only then.
    socket.end(payload === undefined ? `${command}\n` : `${command} <<\n${payload}\n\n`);
    if (signal?.aborted === true) abort();
  });
}

function socketError(path: string, unit: string, error: unknown): PluginError {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'ENOENT' || code === 'ECONNREFUSED') return notRunning(path, unit, { cause: error });
  return new PluginError({
    code: code === 'EACCES' ? 'haproxy-socket-not-permitted' : 'haproxy-silent',
    message: `no answer from HAProxy at ${path}: ${error instanceof Error ? error.message : String(error)}`,
    next:
      code === 'EACCES'
        ? `check that user bornemisza is in the socket's group: ls -l ${path}`
        : `see \`journalctl -u ${unit}\``,
    outcome: 'retry',
    cause: error,
  });
}

export function notRunning(
  path: string,
  unit: string,
  more: Pick<PluginErrorFacts, 'cause' | 'keepsChanges'> = {},
): PluginError {
  return new PluginError({
    code: 'haproxy-not-running',
    message: `HAProxy is not running: no process listens at ${path}`,
    next: `start it: \`systemctl start ${unit}\` (its configuration is written), then see \`journalctl -u ${unit}\``,
    outcome: 'retry',
    ...more,
  });
}

/** A line of `show servers state` (version 1 of the format, 2.4 to 3.x). */
export interface ServerState {
  readonly backend: string;
  readonly name: string;
  readonly address: string;
  readonly port: number;
  /** SRV_ADMF_FMAINT: forced into maintenance, by the socket or by `disabled`. */
  readonly maint: boolean;
  /** SRV_ADMF_FDRAIN. */
  readonly drain: boolean;
  /** srv_op_state other than 0 (stopped). */
  readonly up: boolean;
  /** True unless `disable health` switched the checks off. */
  readonly checked: boolean;
  /** False if the weight was changed. */
  readonly fullWeight: boolean;
}

/** The proxy of the master's own socket. 2.4 lists it beside ours; its servers are processes and can't be changed. */
const INTERNAL_PROXY = 'MASTER';

/**
 * Reads `show servers state`. Columns are found by their names, as later versions add some at the end. Unreadable lines
 * are left out: a missing server is a difference, which the plan repairs.
 */
export function parseServersState(text: string): ServerState[] {
  const lines = text.split('\n').map((line) => line.trim());
  const header = lines.find((line) => line.startsWith('# '));
  if (header === undefined) return [];
  const columns = header.slice(2).split(' ');
  return lines.flatMap((line) => {
    const cells = line.split(' ');
    if (line.startsWith('#') || cells.length < 19) return [];
    const cell = (name: string): string => cells[columns.indexOf(name)] ?? '';
    if (cell('be_name') === INTERNAL_PROXY) return [];
    // On a unix socket: part of the structure, and never sent a change.
    if (cell('srv_addr') === '-') return [];
    const admin = Number(cell('srv_admin_state'));
    return [
      {
        backend: cell('be_name'),
        name: cell('srv_name'),
        address: cell('srv_addr'),
        port: Number(cell('srv_port')),
        maint: (admin & 0x01) !== 0,
        drain: (admin & 0x08) !== 0,
        up: cell('srv_op_state') !== '0',
        // CHK_ST_CONFIGURED is 2, CHK_ST_ENABLED is 4.
        checked: (Number(cell('srv_check_state')) & 0x06) !== 0x02,
        fullWeight: cell('srv_uweight') === cell('srv_iweight'),
      },
    ];
  });
}

interface Info {
  readonly pid: number;
  /** The structure that this process runs, as named by `render`; '' for a foreign configuration. */
  readonly structure: string;
}

/** Reads `show info`. */
export function parseInfo(text: string, instance: string): Info {
  const value = (key: string): string => new RegExp(`^${key}: *(.*)$`, 'm').exec(text)?.[1]?.trim() ?? '';
  const description = value('description');
  const prefix = `bornemisza-${instance}-`;
  return {
    pid: Number(value('Pid')),
    structure: description.startsWith(prefix) ? description.slice(prefix.length) : '',
  };
}

/** The certificate of the site among those that a process has loaded, by `show ssl cert`: its path there. */
export function parseSiteFile(text: string): string | undefined {
  return /^\S+\/edge-[0-9a-f]{16}\.pem$/m.exec(text)?.[0];
}

/** SHA-1 of the leaf in hex, from `show ssl cert FILE`. */
export function parseSiteDigest(text: string): string | undefined {
  return /^SHA1 FingerPrint: *([0-9A-F]{40})$/m.exec(text)?.[1]?.toLowerCase();
}

/** Connections of clients that a process has, from `show info`. */
export function parseConnections(text: string): number {
  return Number(/^CurrConns: *(\d+)/m.exec(text)?.[1] ?? 0);
}

/**
 * Reads `help add server`. 2.4 hides the command, which is an experiment there and takes no check.
 */
export function offersAddServer(help: string): boolean {
  return /^\s*add server /m.test(help);
}

/** Rows of `show stat`: CSV with a header line. */
function rowsOf(text: string, names: readonly string[]): string[][] {
  const [header = '', ...lines] = text.split('\n');
  const columns = header.replace(/^# /, '').split(',');
  const wanted = names.map((column) => columns.indexOf(column));
  return lines.map((line) => {
    const cells = line.split(',');
    return wanted.map((column) => cells[column] ?? '');
  });
}

/** Names of frontends and whether they take connections, from `show stat`. */
export function parseFrontends(text: string): Map<string, boolean> {
  return new Map(
    rowsOf(text, ['pxname', 'svname', 'status']).flatMap(([name = '', kind, status]) =>
      kind === 'FRONTEND' ? [[name, status === 'OPEN'] as const] : [],
    ),
  );
}

/**
 * `BACKEND/NAME` of servers with sessions, kept connections or waiting requests, from `show stat`: these cannot be
 * deleted.
 */
export function parseBusyServers(text: string): Set<string> {
  const columns = ['pxname', 'svname', 'scur', 'qcur', 'idle_conn_cur', 'used_conn_cur'];
  return new Set(
    rowsOf(text, columns).flatMap(([backend = '', name = '', ...counts]) =>
      name !== 'FRONTEND' && counts.some((count) => Number(count) > 0) ? [`${backend}/${name}`] : [],
    ),
  );
}

/** Frontends with their open connections, and servers, from `show stat`. */
export function parseStat(text: string): {
  readonly frontends: readonly { readonly name: string; readonly connections: number }[];
  readonly servers: readonly {
    readonly backend: string;
    readonly name: string;
    readonly status: string;
    readonly sessions: number;
  }[];
} {
  const rows = rowsOf(text, ['pxname', 'svname', 'status', 'scur']);
  return {
    frontends: rows.flatMap(([name = '', kind, , current]) =>
      kind === 'FRONTEND' ? [{ name, connections: Number(current) }] : [],
    ),
    servers: rows.flatMap(([backend = '', name = '', status = '', current]) =>
      ['FRONTEND', 'BACKEND', ''].includes(name)
        ? []
        : [{ backend, name, status, sessions: Number(current) }],
    ),
  };
}

/** Frontend → open requests, from `show sess`: a kept connection without a request has no line there. */
export function parseStreams(text: string): Map<string, number> {
  const counts = new Map<string, number>();
  for (const line of text.split('\n')) {
    const frontend = /^0x[0-9a-f]+: .* fe=(\S+) /.exec(line)?.[1];
    if (frontend !== undefined) counts.set(frontend, (counts.get(frontend) ?? 0) + 1);
  }
  return counts;
}

/** Requests under way from `show sess`, the oldest first as HAProxy lists them. */
export function parseLong(
  text: string,
): { readonly id: string; readonly frontend: string; readonly ageSeconds: number }[] {
  return text.split('\n').flatMap((line) => {
    const [, id, frontend, age] = /^(0x[0-9a-f]+): .* fe=(\S+) .* age=(\w+) /.exec(line) ?? [];
    if (id === undefined || frontend === undefined || age === undefined) return [];
    return [{ id, frontend, ageSeconds: secondsOf(age) }];
  });
}

const UNITS: Readonly<Record<string, number>> = { d: 86_400, h: 3600, m: 60, s: 1 };

/** `4s`, `1m05s`, `2h03m`, `1d02h`, and `0d00h05m12s`. */
function secondsOf(text: string): number {
  return [...text.matchAll(/(\d+)([dhms])/g)].reduce(
    (sum, [, count, unit = '']) => sum + Number(count) * (UNITS[unit] ?? 0),
    0,
  );
}

/** Values of a pattern file from `show acl FILE`: one `0xADDRESS VALUE` a line. */
export function parseAcl(text: string): string[] {
  return text.split('\n').flatMap((line) => /^0x[0-9a-f]+ (\S+)$/.exec(line.trim())?.[1] ?? []);
}

interface Process {
  readonly pid: number;
  readonly kind: 'master' | 'worker' | 'old-worker';
  /** Of the master: its number of reloads. Of a worker: how many it has outlived. */
  readonly reloads: number;
  readonly upSeconds: number;
  /** Of the master: how many of the latest reloads failed in a row; undefined where this version doesn't say. */
  readonly failed: number | undefined;
}

/**
 * Reads the master's `show proc`. Version 2.4 has one more column (the relative pid) than 2.5 and later, and counts no
 * failures. Its master answers after a reload only when the new process runs or has failed: then it lists none.
 */
export function parseProcesses(text: string): Process[] {
  const processes: Process[] = [];
  let old = false;
  let reloadsAt = 2;
  for (const line of text.split('\n')) {
    if (line.startsWith('#<PID>')) reloadsAt = line.includes('<relative PID>') ? 3 : 2;
    if (line.startsWith('# ')) old = line.startsWith('# old');
    const cells = line.trim().split(/\s+/);
    const kind = cells[1];
    if (!/^\d+$/.test(cells[0] ?? '') || (kind !== 'master' && kind !== 'worker')) continue;
    const failed = /\[failed: (\d+)\]/.exec(line)?.[1];
    processes.push({
      pid: Number(cells[0]),
      kind: kind === 'worker' && old ? 'old-worker' : kind,
      reloads: Number(cells[reloadsAt]),
      upSeconds: secondsOf(/ (\d+d\d+h\d+m\d+s)/.exec(line)?.[1] ?? ''),
      failed: failed === undefined ? undefined : Number(failed),
    });
  }
  const hasNone = reloadsAt === 3 && !processes.some(({ kind }) => kind === 'worker');
  return hasNone
    ? processes.map((each) => (each.kind === 'master' ? { ...each, failed: 1 } : each))
    : processes;
}

/**
 * By pid of each old worker, for how long it has been old: since the next one began. If that one has ended already, it
 * is a time that is too short.
 */
export function oldSinceSeconds(processes: readonly Process[]): Map<number, number> {
  const workers = processes.filter(({ kind }) => kind !== 'master');
  return new Map(
    workers
      .filter(({ kind }) => kind === 'old-worker')
      .map(({ pid, reloads }) => {
        const later = workers.filter((each) => each.reloads < reloads).map(({ upSeconds }) => upSeconds);
        return [pid, Math.max(0, ...later)] as const;
      }),
  );
}

/** Ids of the sessions in `show sess` that came from an address through one of the frontends. */
export function sessionsFrom(text: string, address: string, frontends: readonly string[]): string[] {
  return text.split('\n').flatMap((line) => {
    const id = /^(0x[0-9a-f]+): /.exec(line)?.[1];
    const source = / src=(\d+\.\d+\.\d+\.\d+):\d+ /.exec(line)?.[1];
    const frontend = / fe=(\S+) /.exec(line)?.[1];
    return id !== undefined && source === address && frontends.includes(frontend ?? '') ? [id] : [];
  });
}
