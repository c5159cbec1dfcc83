import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { parseSync, Visitor } from 'oxc-parser';

/**
 * Who may import whom and what a test file may not do, and why not. Paths are relative to the root of the repository,
 * with forward slashes.
 */

/** What a room may import of the project; packages and node: modules are judged by `packages`. */
interface Room {
  readonly of: RegExp;
  readonly imports: readonly RegExp[];
  /** Undefined: any. */
  readonly packages?: readonly RegExp[];
  readonly reason: string;
}

const PURE =
  'a pure room has no clock, randomness, I/O or async: the simulator and the tables of cases depend on it';
const TYPES_AND_OWN = /^src\/daemon\/membership\//;

/** The first room that matches a file is the one that rules it. */
export const ROOMS: readonly Room[] = [
  {
    of: /^src\/daemon\/membership\//,
    imports: [TYPES_AND_OWN],
    packages: [],
    reason: `membership imports only itself; ${PURE}`,
  },
  {
    of: /^src\/daemon\/wire\//,
    imports: [/^src\/daemon\/wire\//, TYPES_AND_OWN],
    packages: [/^@bufbuild\/protobuf/],
    reason: `wire imports its codec library and membership's message types only; ${PURE}`,
  },
  {
    of: /^src\/roles\//,
    imports: [/^src\/roles\//, /^src\/plugins\/\w+\/desired\.ts$/, /^src\/daemon\/membership\/types\.ts$/],
    packages: [],
    reason: `a role is policy: it may import the view's types and each plugin's desired type; ${PURE}`,
  },
  {
    of: /^src\/host\//,
    imports: [/^src\/host\//, /^src\/plugins\/contract\.ts$/],
    packages: [/^node:/],
    reason:
      'host touches the machine (files, commands, addresses) and imports only the error of the contract',
  },
  {
    of: /^src\/plugins\/contract\.ts$/,
    imports: [],
    packages: [/^node:/],
    reason: 'the plugin contract imports nothing of ours',
  },
  ...['haproxy', 'couchdb', 'bird', 'layer2', 'floating', 'firewall', 'dns'].map(
    (name): Room => ({
      of: new RegExp(`^src/plugins/${name}/`),
      imports: [new RegExp(`^src/plugins/${name}/`), /^src\/plugins\/contract\.ts$/, /^src\/host\//],
      reason: 'a plugin may import the contract and src/host; never the daemon, a role or another plugin',
    }),
  ),
  {
    of: /^src\/plugins\/certificates\//,
    imports: [/^src\/plugins\/certificates\//, /^src\/plugins\/contract\.ts$/, /^src\/(host|acme)\//],
    reason:
      'a plugin may import the contract and src/host, and this one the client of the CA; never the daemon or a role',
  },
  {
    of: /^src\/daemon\/reconciler\//,
    imports: [
      /^src\/plugins\/contract\.ts$/,
      /^src\/daemon\/reconciler\//,
      /^src\/daemon\/(clock|random)\.ts$/,
      /^src\/daemon\/audit\/trail\.ts$/,
      /^src\/daemon\/control\/api\.ts$/,
    ],
    reason: 'the reconciler sees only the contract',
  },
  {
    of: /^src\/app\/accounts\//,
    imports: [/^src\/app\/accounts\//],
    packages: [/^node:(crypto|url)$/],
    reason: `names, tokens, cookies and rules of accounts import only each other; ${PURE}`,
  },
  {
    of: /^src\/app\//,
    imports: [/^src\/app\//, /^src\/mail\//],
    reason: 'the app tier is a program of its own: it imports neither daemon nor command',
  },
  {
    of: /^src\/mail\//,
    imports: [/^src\/mail\//],
    reason: 'mail is sent for the daemon and for the app tier, and knows neither',
  },
  {
    of: /^src\/acme\//,
    imports: [/^src\/acme\//],
    packages: [/^node:/],
    reason:
      'the ACME client speaks with a certificate authority, and knows nothing of the cluster that uses it',
  },
  {
    of: /^src\/web\//,
    imports: [/^src\/web\//],
    packages: [/^preact(\/hooks)?$/],
    reason:
      'the page imports itself and Preact: all that it imports is delivered, and a copy of it stands alone',
  },
  {
    of: /^src\/daemon\/notification\/(conditions|policy|message)\.ts$/,
    imports: [
      /^src\/daemon\/notification\/(conditions|policy|message)\.ts$/,
      /^src\/daemon\/membership\/types\.ts$/,
      /^src\/daemon\/rollout\/policy\.ts$/,
    ],
    packages: [/^node:crypto$/],
    reason: `what is told, by whom and when is policy over the view; ${PURE}`,
  },
  {
    of: /^src\/daemon\/notification\//,
    imports: [
      /^src\/daemon\/notification\//,
      /^src\/daemon\/(config\/config|errors|process\/log)\.ts$/,
      /^src\/daemon\/membership\/types\.ts$/,
      /^src\/host\/command\.ts$/,
      /^src\/mail\//,
    ],
    reason: 'notification sends through the bounded subprocess and knows nothing of programs and roles',
  },
  {
    of: /^src\/daemon\/node\/(look|inputs)\.ts$/,
    imports: [
      /^src\/daemon\/node\/look\.ts$/,
      /^src\/roles\//,
      /^src\/plugins\/\w+\/desired\.ts$/,
      /^src\/daemon\/config\/(config|service-health)\.ts$/,
      /^src\/daemon\/(identity\/secrets|membership\/types|notification\/conditions)\.ts$/,
    ],
    packages: [],
    reason: `what a node decides is one function of what it knows; ${PURE}`,
  },
  {
    of: /^src\/daemon\/main\.ts$|^src\/daemon\/node\//,
    imports: [/^src\/(?!cli\/)/],
    reason: 'the composition root may import anything but the command',
  },
  {
    of: /^src\/daemon\/control\/api\.ts$/,
    imports: [/^src\/daemon\/(?!main|node\/)/, /^src\/plugins\/\w+\/(shape|desired)\.ts$/],
    packages: [],
    reason:
      'the socket passes on what a plugin shows in the shape that the plugin defines; it sees no more of a plugin',
  },
  {
    of: /^src\/daemon\//,
    imports: [/^src\/daemon\/(?!main|node\/)/, /^src\/host\//, /^package\.json$/],
    reason: 'the daemon sees no plugin and no role outside its composition root, and nothing imports main',
  },
  {
    of: /^src\/cli\//,
    imports: [
      /^src\/cli\//,
      /^src\/daemon\/(config\/(config|format|shown)|errors|clock|version)\.ts$/,
      /^src\/daemon\/control\/api\.ts$/,
      // While the daemon is down, its trail is read from the disk by the same rules.
      /^src\/daemon\/audit\/stored\.ts$/,
      /^src\/daemon\/membership\/types\.ts$/,
      /^src\/daemon\/identity\//,
      /^src\/plugins\/bird\/base\.ts$/,
      /^src\/plugins\/firewall\/rules\.ts$/,
      /^src\/plugins\/haproxy\/(snippets|snippet-proof)\.ts$/,
      /^src\/plugins\/contract\.ts$/,
      /^src\/host\//,
    ],
    reason:
      'the command talks to the daemon through its socket; only init, join, authority add and ' +
      'rotate-root use identity, and set-up the file tools',
  },
  {
    of: /^src\/bornemisza\.ts$/,
    imports: [/^src\/daemon\/main\.ts$/, /^src\/cli\/[\w-]+\.ts$/, /^src\/cli\/setup\/state-task\.ts$/],
    reason:
      'the program entry only chooses between the daemon, the command and the part of it that is not root',
  },
];

export const PURE_ROOMS = new RegExp(
  [
    /^src\/(daemon\/(membership|wire)|roles|app\/accounts)\/(?!gen\/)/,
    /^src\/plugins\/certificates\/(desired|fit|limits|merge|plan|renewal)\.ts$/,
    /^src\/daemon\/node\/(look|inputs)\.ts$/,
    /^src\/daemon\/notification\/(conditions|policy|message)\.ts$/,
  ]
    .map(({ source }) => source)
    .join('|'),
);
/** What would bring a clock, randomness or the world into a pure room. */
const WORLDLY = new Set([
  'process',
  'performance',
  'setTimeout',
  'setInterval',
  'setImmediate',
  'queueMicrotask',
  'fetch',
  'console',
  'crypto',
  'globalThis',
]);

export interface ImportSeen {
  readonly file: string;
  /** Resolved path for our own modules, the specifier for others. */
  readonly target: string;
  readonly own: boolean;
}

export function sourceFiles(root: string, folder = 'src'): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.tsx?$/.test(name) && !name.endsWith('.d.ts'))
    .map((name) => join(folder, name).replaceAll('\\', '/'))
    .sort();
}

export function importsOf(
  root: string,
  file: string,
  text = readFileSync(join(root, file), 'utf8'),
): ImportSeen[] {
  const { module } = parseSync(file, text);
  const specifiers = [
    ...module.staticImports.map((each) => each.moduleRequest.value),
    ...module.staticExports.flatMap((each) =>
      each.entries.flatMap((entry) => entry.moduleRequest?.value ?? []),
    ),
    ...module.dynamicImports.map((each) =>
      text.slice(each.moduleRequest.start, each.moduleRequest.end).replaceAll(/^['"`]|['"`]$/g, ''),
    ),
  ];
  return specifiers.map((specifier) => {
    const own = specifier.startsWith('.');
    const target = own
      ? relative(root, resolve(root, dirname(file), specifier)).replaceAll('\\', '/')
      : specifier;
    return { file, target, own };
  });
}

/** @returns why the import is forbidden, or undefined */
export function forbidden({ file, target, own }: ImportSeen): string | undefined {
  const room = ROOMS.find((each) => each.of.test(file));
  if (room === undefined) return `${file} stands in no room: add it to test/architecture/rules.ts or move it`;
  const allowed = own
    ? room.imports.some((pattern) => pattern.test(target))
    : (room.packages ?? [/./]).some((pattern) => pattern.test(target));
  return allowed ? undefined : `${file} imports ${target}: ${room.reason}`;
}

/** @returns each set of files that import one another in a circle (Tarjan's strongly connected components) */
export function cyclesIn(imports: readonly ImportSeen[]): string[][] {
  const next = new Map<string, string[]>();
  for (const { file, target, own } of imports) {
    if (!next.has(file)) next.set(file, []);
    if (own) next.get(file)?.push(target);
  }
  const order = new Map<string, number>();
  const low = new Map<string, number>();
  const stack: string[] = [];
  const found: string[][] = [];
  const visit = (file: string): void => {
    order.set(file, order.size);
    low.set(file, order.get(file) as number);
    stack.push(file);
    for (const target of next.get(file) ?? []) {
      if (!next.has(target)) continue;
      if (!order.has(target)) visit(target);
      if (stack.includes(target)) low.set(file, Math.min(low.get(file) as number, low.get(target) as number));
    }
    if (low.get(file) !== order.get(file)) return;
    const circle = stack.splice(stack.indexOf(file));
    if (circle.length > 1) found.push(circle.sort());
  };
  for (const file of next.keys()) if (!order.has(file)) visit(file);
  return found;
}

/** @returns each use of the world in a pure room, with its reason */
export function impurities(file: string, text: string): string[] {
  const { program } = parseSync(file, text);
  const found: string[] = [];
  const say = (what: string): void => void found.push(`${file} uses ${what}: ${PURE}`);
  const onFunction = (node: { async: boolean }): void => {
    if (node.async) say('async');
  };
  new Visitor({
    FunctionDeclaration: onFunction,
    FunctionExpression: onFunction,
    ArrowFunctionExpression: onFunction,
    AwaitExpression: () => say('await'),
    Identifier: (node) => {
      if (WORLDLY.has(node.name)) say(node.name);
    },
    NewExpression: (node) => {
      if (node.callee.type !== 'Identifier') return;
      if (node.callee.name === 'Promise') say('Promise');
      if (node.callee.name === 'Date' && node.arguments.length === 0) say('new Date()');
    },
    MemberExpression: (node) => {
      if (node.object.type !== 'Identifier' || node.property.type !== 'Identifier') return;
      const name = `${node.object.name}.${node.property.name}`;
      if (name === 'Date.now' || name === 'Math.random') say(name);
    },
  }).visit(program);
  return found;
}

/** A function of this many lines is read in one look at a screen. */
export const MOST_LINES = 70;

/** @returns each function that is longer than {@link MOST_LINES}, with its length */
export function longFunctions(file: string, text: string): string[] {
  const { program } = parseSync(file, text);
  const found: string[] = [];
  const lineAt = (at: number): number => text.slice(0, at).split('\n').length;
  const onFunction = ({ start, end }: { start: number; end: number }): void => {
    const lines = lineAt(end) - lineAt(start) + 1;
    if (lines > MOST_LINES) found.push(`${file}:${lineAt(start)} is a function of ${lines} lines: split it`);
  };
  new Visitor({
    FunctionDeclaration: onFunction,
    FunctionExpression: onFunction,
    ArrowFunctionExpression: onFunction,
  }).visit(program);
  return found;
}

/** Calls of tap's root that start nothing: they prepare, or say what happens when all is over. */
const STARTS_NOTHING = new Set(['after', 'fixture', 'setTimeout', 'teardown', 'testdir']);

interface WithParameters {
  readonly params: readonly { readonly type: string; readonly name?: unknown }[];
}

/**
 * Each top-level `await` of a test file that comes after a test has been registered, with the reason why it may not. A
 * statement counts as registering when it uses anything else of tap's root, or hands the root to another function.
 */
export function awaitsAfterTests(file: string, text: string): string[] {
  const { program } = parseSync(file, text);
  const root = program.body
    .flatMap((each) =>
      each.type === 'ImportDeclaration' && each.source.value === 'tap' ? each.specifiers : [],
    )
    .find((each) => each.type === 'ImportDefaultSpecifier')?.local.name;
  if (root === undefined) return [];
  let functions = 0;
  /** How many of the functions around have a parameter of the root's name: there it is a test's own. */
  let hidden = 0;
  let firstAt = Number.POSITIVE_INFINITY;
  const awaits: number[] = [];
  const hides = ({ params }: WithParameters): number =>
    params.some((each) => each.type === 'Identifier' && each.name === root) ? 1 : 0;
  const enter = (node: WithParameters): void => {
    functions += 1;
    hidden += hides(node);
  };
  const leave = (node: WithParameters): void => {
    functions -= 1;
    hidden -= hides(node);
  };
  const isRoot = (node: { type: string; name?: unknown }): boolean =>
    hidden === 0 && node.type === 'Identifier' && node.name === root;
  const waits = ({ start }: { start: number }): void => {
    if (functions === 0) awaits.push(start);
  };
  new Visitor({
    FunctionDeclaration: enter,
    'FunctionDeclaration:exit': leave,
    FunctionExpression: enter,
    'FunctionExpression:exit': leave,
    ArrowFunctionExpression: enter,
    'ArrowFunctionExpression:exit': leave,
    AwaitExpression: waits,
    ForOfStatement: (node) => {
      if (node.await) waits(node);
    },
    VariableDeclaration: (node) => {
      if (node.kind === 'await using') waits(node);
    },
    MemberExpression: ({ object, property, start }) => {
      const known = property.type === 'Identifier' && STARTS_NOTHING.has(property.name);
      if (isRoot(object) && !known) firstAt = Math.min(firstAt, start);
    },
    CallExpression: (node) => {
      if (node.arguments.some(isRoot)) firstAt = Math.min(firstAt, node.start);
    },
  }).visit(program);
  return awaits
    .filter((at) => at > firstAt)
    .map(
      (at) =>
        `${file}:${text.slice(0, at).split('\n').length} awaits at the top level after a test was ` +
        'registered: while it waits, tap runs that test, and whatever the module declares further down ' +
        'does not exist yet. Move it above the first test, or into the test',
    );
}
