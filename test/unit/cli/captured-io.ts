import type { NetworkInterfaceInfo } from 'node:os';
import { run } from '../../../src/cli/main.ts';
import type { Host, Io, Ran } from '../../../src/cli/io.ts';
import { thisHost } from '../../../src/cli/process-io.ts';

export interface Result {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export interface Surroundings {
  readonly stdin?: string;
  /** What a person answers, question by question. Default: nobody can be asked. */
  readonly answers?: readonly string[];
  readonly terminal?: boolean;
  readonly colour?: boolean;
  readonly columns?: number;
  readonly rows?: number;
  /** Keys that a person presses, one after another. Default: there is no keyboard. */
  readonly keys?: readonly string[];
  readonly host?: Host;
  readonly startDaemon?: Io['startDaemon'];
  /** Called with each piece of standard output as it is written. */
  readonly onOut?: (text: string) => void;
  /** Whether nobody reads standard output any more. */
  readonly gone?: () => boolean;
}

/** Runs one command line in this process and keeps what it printed. */
export async function runCli(argv: readonly string[], given: Surroundings = {}): Promise<Result> {
  let out = '';
  let err = '';
  const output = (write: (text: string) => void) => ({
    write,
    get gone() {
      return given.gone?.() ?? false;
    },
    colour: given.colour ?? false,
    columns: given.columns ?? 100,
    rows: given.rows ?? Number.POSITIVE_INFINITY,
  });
  const left = [...(given.answers ?? [])];
  const answer = async (prompt: string): Promise<string | undefined> => {
    err += prompt;
    return left.shift();
  };
  const io: Io = {
    stdout: output((text) => {
      out += text;
      given.onOut?.(text);
    }),
    stderr: output((text) => {
      err += text;
    }),
    stdin: inputOf(given.stdin ?? ''),
    ...(given.answers !== undefined && { typed: () => ({ line: answer, close: () => {} }) }),
    ...(given.keys !== undefined && { keys: (pressed) => presser(given.keys ?? [], pressed) }),
    terminal: given.terminal ?? false,
    host: given.host ?? thisHost(),
    startDaemon: given.startDaemon ?? (async () => {}),
  };
  const code = await run(argv, io);
  return { code, out, err };
}

/** Presses one key after another, with time for what each one does. */
function presser(keys: readonly string[], pressed: (key: string) => void): () => void {
  const left = [...keys];
  const timer = setInterval(() => {
    const key = left.shift();
    if (key !== undefined) pressed(key);
  }, 20);
  return () => clearInterval(timer);
}

async function* inputOf(text: string): AsyncGenerator<string> {
  if (text !== '') yield text;
}

const address = (text: string, netmask = '255.255.255.0'): NetworkInterfaceInfo => ({
  address: text,
  netmask,
  family: 'IPv4',
  mac: '02:00:00:00:00:01',
  internal: text.startsWith('127.'),
  cidr: null,
});

/**
 * A machine with devices as given, e.g. `{ eth0: ['203.0.113.7'], eth1: ['10.0.0.11'] }`, on which no program is
 * installed.
 */
export function fakeHost(facts: {
  readonly hostname?: string;
  readonly devices?: Readonly<Record<string, readonly string[]>>;
  readonly uid?: number;
  readonly programs?: Readonly<Record<string, (args: readonly string[]) => Partial<Ran>>>;
}): Host {
  const devices = facts.devices ?? { eth0: ['203.0.113.7'], eth1: ['10.0.0.11'] };
  return {
    hostname: () => facts.hostname ?? 'app1.shop.example',
    interfaces: () => ({
      lo: [address('127.0.0.1', '255.0.0.0')],
      ...Object.fromEntries(
        Object.entries(devices).map(([name, list]) => [name, list.map((each) => address(each))]),
      ),
    }),
    uid: facts.uid ?? 0,
    run: async (program, args) => {
      const known = facts.programs?.[program];
      const missing = { code: -1, stdout: '', stderr: `${program} is not installed` };
      return known === undefined ? missing : { code: 0, stdout: '', stderr: '', ...known(args) };
    },
    again: async () => 1,
    becomeDaemon: async () => {},
  };
}
