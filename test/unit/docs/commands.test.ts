import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import t from 'tap';
import { processIo } from '../../../src/cli/process-io.ts';
import { buildProgram } from '../../../src/cli/program.ts';
import { typedIn, typedUnder } from '../../support/manual.ts';

/** What the documents tell their reader to type: how much it is, and that the program takes it. */
const root = resolve(import.meta.dirname, '../../..');
const program = buildProgram(processIo(async () => {}));
const documents = [
  ...['README.md', 'SECURITY.md', 'ARCHITECTURE.md'],
  ...readdirSync(join(root, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
];
/** What three app and three db nodes may take, with an installation on each. */
const MOST_COMMANDS = 14;

/** Each command of ours in a document: in the blocks that are typed, and in the text between backticks. */
function commandsIn(document: string): string[] {
  const text = readFileSync(join(root, document), 'utf8').replaceAll(/^```[^]*?^```$/gm, '');
  const spans = [...text.matchAll(/`([^`]+)`/g)].map(([, span = '']) => span.replaceAll(/\s+/g, ' '));
  // A line of options alone belongs to `init` and `join`.
  const typed = typedIn(document).map(({ command }) =>
    command.startsWith('--') ? `bornemisza init ${command}` : command,
  );
  return [...typed, ...spans]
    .flatMap((line) => line.split(/ && | \| |;/))
    .map((line) => line.trim().replace(/^sudo /, ''))
    .filter((line) => line.startsWith('bornemisza ') && !line.startsWith('bornemisza COMMAND'));
}

/** Why the program does not take these words; undefined when it does. */
function refusal(line: string): string | undefined {
  const words = line.split(' ').slice(1);
  let verb: (typeof program)['commands'][number] = program;
  while (words.length > 0) {
    const next = verb.commands.find((each) => each.name() === words[0]);
    if (next === undefined) break;
    verb = next;
    words.shift();
  }
  if (verb === program && !/^(--help|--version|help)$/.test(words[0] ?? '')) return `no command ${words[0]}`;
  let operands = 0;
  while (words.length > 0) {
    const word = words.shift() ?? '';
    if (!word.startsWith('--')) operands += 1;
    else if (!['--help', '--version'].includes(word)) {
      const option = verb.options.find(({ long }) => long === word);
      if (option === undefined) return `${verb.name()} has no ${word}`;
      if (option.required) words.shift();
      else if (option.optional && words[0] !== undefined && !words[0].startsWith('-')) words.shift();
    }
  }
  if (verb.commands.length > 0 && operands > 0 && verb !== program) return `no command ${line}`;
  return operands > verb.registeredArguments.length && verb !== program
    ? `${verb.name()} takes ${verb.registeredArguments.length} words`
    : undefined;
}

t.test('six machines take at most fourteen commands, by README.md as by install.md', async (t) => {
  for (const [document, section] of [
    ['README.md', 'From nothing to three app and three db nodes'],
    ['docs/install.md', 'Install'],
  ] as const) {
    const typed = typedUnder(typedIn(document), section).filter((each) => !each.startsWith('dnf '));
    const tokens = typed.filter((each) => each.includes(' token create '));
    const joins = typed.filter((each) => / join /.test(each));
    const counts = tokens.map((each) => Number(/--count (\d+)/.exec(each)?.[1] ?? 1));
    const joining = counts.reduce((sum, each) => sum + each, 0);
    t.equal(joining, 5, `${document}: five machines join`);
    t.same(
      tokens.map((each) => /--role (\w+)/.exec(each)?.[1]),
      ['app', 'db'],
    );
    t.match(typed[0], / init --role app .*--start$/, 'the first node is started by its set-up');
    t.match(joins, [/ join --start$/], 'and so is each other');
    // On each machine its installation; `doctor` looks, and sets nothing up.
    const setUp = typed.filter((each) => !each.includes(' doctor'));
    const all = 1 + joining + (setUp.length - joins.length) + joining * joins.length;
    t.ok(all <= MOST_COMMANDS, `${document}: ${all} commands`);
    if (document === 'README.md')
      t.match(readFileSync(join(root, document), 'utf8'), `these are ${all} commands`, 'as it says itself');
  }
});

t.test('the program takes each command that a document names', async (t) => {
  let seen = 0;
  for (const document of documents) {
    for (const line of commandsIn(document)) {
      seen += 1;
      const why = refusal(line);
      if (why !== undefined) t.fail(`${document}: ${line}: ${why}`);
    }
  }
  t.ok(seen > 150, `${seen} commands`);
});

t.test('what the program does not take is found', async (t) => {
  for (const line of [
    'bornemisza nosuch',
    'bornemisza token nosuch',
    'bornemisza status --nosuch',
    'bornemisza explain one two',
    'bornemisza init --role app --cluster shop --begin',
  ])
    t.not(refusal(line), undefined, line);
  for (const line of [
    'bornemisza status --check',
    'bornemisza remove db2/db --dead',
    'bornemisza join --wait --start',
    'bornemisza token create --role db --count 3',
  ])
    t.equal(refusal(line), undefined, line);
});

t.test(
  'install.md names the ports of each firewalld service, and deletes each user of the package',
  async (t) => {
    const text = readFileSync(join(root, 'docs/install.md'), 'utf8');
    const typed = typedIn('docs/install.md');
    for (const service of ['bornemisza-edge', 'bornemisza-app', 'bornemisza-db']) {
      const ports = new RegExp(`^\\| ${service} \\| ([\\d, ]+) \\|$`, 'm').exec(text)?.[1]?.split(', ') ?? [];
      const xml = readFileSync(join(root, 'rpm/firewalld', `${service}.xml`), 'utf8');
      const opened = [...xml.matchAll(/port="(\d+)(?:-(\d+))?"/g)].flatMap(([, from = '', to = from]) =>
        Array.from({ length: Number(to) - Number(from) + 1 }, (_, at) => String(Number(from) + at)),
      );
      t.ok(opened.length > 1);
      t.same(opened.toSorted(), ports.toSorted(), service);
      const opens = typedUnder(typed, 'Firewall').filter((each) => each.endsWith(`--add-service=${service}`));
      t.equal(opens.length, 1, service);
    }
    const users = readFileSync(join(root, 'systemd/sysusers.d/bornemisza.conf'), 'utf8');
    const made = [...users.matchAll(/^u (\S+)/gm)].map(([, name]) => name);
    const removal = typedUnder(typed, 'Remove').join('; ');
    t.same(
      [...removal.matchAll(/userdel ([\w-]+)/g)].map(([, name]) => name),
      made,
    );
  },
);
