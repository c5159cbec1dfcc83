import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import t from 'tap';
import {
  directoriesOf,
  refusal,
  stateImports,
  type Touch,
  touchesOfScript,
  touchesOfSpec,
  touchesOfTmpfiles,
  touchesOfUnit,
  unitsIn,
} from './root-paths.ts';
import { sourceFiles } from './rules.ts';

const root = resolve(import.meta.dirname, '../..');
const read = (path: string): string => readFileSync(join(root, path), 'utf8');
const units = unitsIn(join(root, 'systemd/system'));
const tmpfiles = read('systemd/tmpfiles.d/bornemisza.conf');
const directories = directoriesOf(units, tmpfiles);
const ofUnits = units.flatMap(touchesOfUnit);

/** Scripts of ours that a unit runs as root: what they touch counts as well. */
const scripts = units
  .flatMap(({ lines }) => lines)
  .filter(([key]) => key.startsWith('Exec'))
  .flatMap(([, value]) => /libexec\/bornemisza\/([a-z-]+)(?=\s|$)/.exec(value)?.[1] ?? [])
  .filter((name) => name === 'take-request');

/** Renamed and nothing else: a rename neither opens a name nor follows it. */
const RENAMED = '/run/bornemisza/$role/$1';

t.test('root and process 1 touch nothing below a directory that another user can write', async (t) => {
  const touches: Touch[] = [
    ...ofUnits,
    ...touchesOfTmpfiles(tmpfiles),
    ...touchesOfSpec(read('rpm/bornemisza-node.spec')),
    ...[...new Set(scripts)].flatMap((name) => touchesOfScript(name, read(`systemd/${name}`))),
  ];
  t.ok(units.length > 15, `${units.length} units`);
  t.ok(touches.length > 40, `${touches.length} paths`);
  for (const path of ['/var/lib/bornemisza/app', '/run/bornemisza/db', '/var/lib/bornemisza/couchdb'])
    t.equal(directories.get(path)?.owner, 'bornemisza', `${path} is known as the daemon’s`);
  const refused = touches
    .filter(({ path }) => path !== RENAMED)
    .flatMap((each) => refusal(each, directories) ?? []);
  t.same(refused, []);
  t.comment([...new Set(touches.map(({ path }) => path))].sort().join(' '));
});

t.test('the script that takes a request away renames it and does nothing else with it', async (t) => {
  const uses = read('systemd/take-request')
    .split('\n')
    .filter((line) => line.includes('$request'));
  t.equal(uses.length, 1);
  const [line = ''] = uses;
  const rest = line.replaceAll(/\[ -[eL] "\$request" \]|mv -T -- "\$request" "\$taken\/\$role"/g, '');
  t.notMatch(rest, /\$request/);
});

t.test('a planted path is refused in any file', async (t) => {
  const unit = (lines: readonly (readonly [string, string])[], name = 'x.service') =>
    touchesOfUnit({ name, lines });
  const planted: readonly (readonly [what: string, touches: readonly Touch[]])[] = [
    [
      'an environment file',
      unit([
        ['User', 'couchdb'],
        ['EnvironmentFile', '-/var/lib/bornemisza/couchdb/couchdb.env'],
      ]),
    ],
    ['a program of root', unit([['ExecStart', '/bin/rm -f /run/bornemisza/app/upgrade']])],
    ['one within a shell', unit([['ExecStart', "/bin/sh -c 'echo x >/run/bornemisza/db/x'"]])],
    [
      'one that keeps root',
      unit([
        ['User', 'bornemisza'],
        ['ExecStartPre', '+/bin/cat /var/lib/bornemisza/app/x'],
      ]),
    ],
    [
      'one with a prefix before',
      unit([
        ['User', 'couchdb'],
        ['ExecStartPre', '-+/bin/touch /var/lib/couchdb/local.ini'],
      ]),
    ],
    [
      'a program that a user can replace',
      unit([
        ['User', 'couchdb'],
        ['ExecStart', '/var/lib/couchdb/run'],
      ]),
    ],
    [
      'output to a file',
      unit([
        ['User', 'bird'],
        ['StandardOutput', 'append:/etc/bird/bornemisza.d/log'],
      ]),
    ],
    [
      'a credential',
      unit([
        ['User', 'x'],
        ['LoadCredential', 'key:/var/lib/bornemisza/db/tls.key'],
      ]),
    ],
    [
      'a pid file',
      unit([
        ['User', 'x'],
        ['PIDFile', '/run/bornemisza/deadman/pid'],
      ]),
    ],
    [
      'a drop-in of another package',
      unit([['ExecStartPre', '/bin/chown root /etc/bird/bornemisza.d/x']], 'bird.service'),
    ],
    [
      'a tmpfiles line',
      touchesOfTmpfiles('C /var/lib/bornemisza/haproxy/app/haproxy.cfg 0640 bornemisza x - /usr/share/x'),
    ],
    [
      'a scriptlet',
      touchesOfSpec('%post\nchown -R bornemisza /var/lib/bornemisza/app/authority\n\n%files\n'),
    ],
    [
      'a scriptlet at the removal',
      touchesOfSpec('%preun\nif true; then\n  rm -rf /var/lib/bornemisza/couchdb/*\nfi\n'),
    ],
    [
      'a script',
      touchesOfScript('x', 'for each in app db; do rm -f "/run/bornemisza/$each/upgrade"; done\n'),
    ],
    ['what everybody can write', unit([['ExecStart', '/bin/cp /tmp/x /etc/x']])],
  ];
  for (const [what, touches] of planted)
    t.ok(
      touches.some((each) => refusal(each, directories) !== undefined),
      what,
    );
  const [first] = planted[1]?.[1].flatMap((each) => refusal(each, directories) ?? []) ?? [];
  t.match(
    first,
    'has root touch /run/bornemisza/app/upgrade, and bornemisza can write /run/bornemisza/app: ' +
      'do it as that user',
  );

  for (const [what, touches] of [
    [
      'the same as that user',
      unit([
        ['User', 'bornemisza'],
        ['ExecStart', '/bin/rm -f /run/bornemisza/app/upgrade'],
      ]),
    ],
    [
      'a user that lives for the unit',
      unit([
        ['DynamicUser', 'yes'],
        ['ExecStart', '/bin/cat /run/bornemisza/deadman/heartbeat'],
      ]),
    ],
    ['a condition', unit([['ConditionPathExists', '/var/lib/bornemisza/couchdb/vm.args']])],
    [
      'a directory itself, in one of root’s',
      touchesOfTmpfiles('d /var/lib/bornemisza/couchdb 2750 bornemisza couchdb -'),
    ],
    ['a file of root', unit([['ExecStart', "/bin/sh -c 'echo working >/run/bornemisza/upgraded'"]])],
  ] as const)
    t.same(
      touches.flatMap((each) => refusal(each, directories) ?? []),
      [],
      what,
    );
});

t.test('the command works in the daemon’s directories in one place, which is never root', async (t) => {
  const own = 'src/cli/setup/state-task.ts';
  const files = sourceFiles(root, 'src/cli');
  t.ok(files.includes(own));
  t.same(
    files
      .filter((file) => file !== own)
      .flatMap((file) => stateImports(file, read(file)).map((each) => `${file}: ${each}`)),
    [],
  );
  t.ok(stateImports(own, read(own)).length >= 4, 'that place is seen');
  const one = (text: string) => stateImports('src/cli/x.ts', text).length;
  t.equal(one("import { loadIdentity } from '../daemon/identity/identity.ts';"), 1);
  t.equal(one("const { stateOf } = await import('../daemon/identity/state.ts');"), 1);
  t.equal(one("import type { Joined } from '../daemon/identity/admission/join.ts';"), 0);
});
