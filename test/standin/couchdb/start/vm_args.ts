/** What of vm.args matters to a node's place in the cluster. Anything else in the file is left unread. */
export type VmArgs = {
  name: string;
  cookie?: string;
  /** Address that the distribution listens on; the release's own default keeps it on loopback. */
  distAddress: string;
  distPort: number;
  netTickTimeMs: number;
  /** TCP_USER_TIMEOUT of distribution sockets; 0 = the kernel's own. */
  userTimeoutMs: number;
  tls: boolean;
  /** Patterns of node names that are spoken to in plain although TLS is on (`no_tls '"*@10.77.0.3"'`). */
  plainPatterns: string[];
  tlsOptionsFile?: string;
};

const firstDistPort = 9100;

/**
 * Reads vm.args as `erl -args_file` does as far as a node's name, cookie, distribution and TLS go.
 * @throws Error when the file names no node.
 */
export function parseVmArgs(text: string): VmArgs {
  const flags = readFlags(text);
  const kernel = pairs(flags.filter((f) => f.flag === '-kernel'));
  const couchDist = pairs(flags.filter((f) => f.flag === '-couch_dist'));
  const single = (flag: string) => flags.findLast((f) => f.flag === flag)?.words.join(' ');
  const name = single('-name') ?? single('-sname');
  if (name === undefined || name === '') throw new Error('vm.args has no -name');
  const noTls = couchDist.filter(([key]) => key === 'no_tls').map(([, value]) => unquote(value));
  const cookie = single('-setcookie');
  const tlsOptionsFile = single('-ssl_dist_optfile');
  return {
    name,
    ...(cookie === undefined ? {} : { cookie }),
    distAddress: addressOf(lastOf(kernel, 'inet_dist_use_interface')),
    distPort: Number(lastOf(kernel, 'inet_dist_listen_min') ?? firstDistPort),
    netTickTimeMs: Number(lastOf(kernel, 'net_ticktime') ?? 60) * 1000,
    userTimeoutMs: userTimeoutOf(lastOf(kernel, 'inet_dist_connect_options')),
    tls: single('-proto_dist') === 'couch' && !noTls.includes('true'),
    plainPatterns: noTls.filter((value) => value !== 'true' && value !== 'false'),
    ...(tlsOptionsFile === undefined ? {} : { tlsOptionsFile: unquote(tlsOptionsFile) }),
  };
}

type Flag = { flag: string; words: string[] };

function readFlags(text: string): Flag[] {
  const words = text
    .split('\n')
    .map((line) => line.replace(/^\s*#.*$/, ''))
    .join(' ')
    .match(/(?:'[^']*'|"[^"]*"|[^\s'"])+/g);
  const flags: Flag[] = [];
  for (const word of words ?? []) {
    if (/^[-+][a-z]/i.test(word)) flags.push({ flag: word, words: [] });
    else flags.at(-1)?.words.push(word);
  }
  return flags;
}

function pairs(flags: Flag[]): [string, string][] {
  const out: [string, string][] = [];
  for (const { words } of flags) {
    for (let i = 0; i + 1 < words.length; i += 2) out.push([words[i] as string, words[i + 1] as string]);
  }
  return out;
}

function lastOf(list: [string, string][], key: string): string | undefined {
  return list.findLast(([k]) => k === key)?.[1];
}

function unquote(value: string): string {
  return value.replaceAll(/^['"]+|['"]+$/g, '');
}

/** `{10,77,0,1}` or `"{10,77,0,1}"` as Erlang writes an address. */
function addressOf(value: string | undefined): string {
  const numbers = value?.match(/\d+/g);
  return numbers?.length === 4 ? numbers.join('.') : '127.0.0.1';
}

/** `[{raw,6,18,<<136,19,0,0>>}]`: option 18 of TCP is TCP_USER_TIMEOUT, 32 bits little endian, ms. */
function userTimeoutOf(value: string | undefined): number {
  const bytes = value
    ?.match(/raw,\s*6,\s*18,\s*<<([\d,\s]+)>>/)?.[1]
    ?.split(',')
    .map(Number);
  if (bytes?.length !== 4) return 0;
  return bytes.reduceRight((sum, byte) => sum * 256 + byte, 0);
}
