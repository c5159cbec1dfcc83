import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { Io, Ran } from '../../../src/cli/io.ts';
import { birdStep } from '../../../src/cli/setup/bird.ts';
import { birdPlace, builtWith, optionsOfUnit } from '../../../src/cli/setup/bird-place.ts';
import { includesIn, isIncluded, isUntouched } from '../../../src/cli/setup/bird-syntax.ts';
import { type Config, parseConfig, pathsFor } from '../../../src/daemon/config/config.ts';
import { fakeHost } from './captured-io.ts';
import { place } from './place.ts';

/** As Debian's package leaves it, in short. */
const DISTRIBUTION =
  'log syslog all;\n# router id 198.51.100.1;\nprotocol device {\n}\nprotocol direct ' +
  '{\n\tdisabled;\n\tipv4;\n}\nprotocol kernel {\n\tipv4 { export all; };\n}\nprotocol static ' +
  '{\n\tipv4;\n#\troute 10.0.0.0/8 unreachable;\n}\n# protocol bgp uplink1 {\n# }\n';
const UPSTREAM = { bgpNeighbor: ['169.254.169.254'], bgpAs: 64515, bgpLocalAs: 4288000123, bgpMultihop: 2 };

const configOf = (more = '', addresses: readonly string[] = ['203.0.113.10', '203.0.113.11']): Config =>
  parseConfig(
    '[node]\ncluster = "shop"\nhost = "app1"\n[network]\nprivate_address = "10.0.0.11"\nprivate_network = ' +
      '"10.0.0.0/24"\nprivate_device = "eth1"\npublic_device = "eth0"\n[floating]\nmode = "bgp"\n' +
      `addresses = ${JSON.stringify(addresses)}\n${more}`,
    'app',
    'app.toml',
  );
const config = configOf();

function stepAt(
  root: string,
  options: Parameters<typeof birdStep>[1],
  bird?: (args: readonly string[]) => Partial<Ran>,
  of = config,
  devices: Readonly<Record<string, readonly string[]>> = {},
) {
  const host = fakeHost({ devices, ...(bird !== undefined && { programs: { bird } }) });
  const quiet = { write: () => {}, colour: false, columns: 100, rows: 24 };
  const io: Io = {
    stdout: quiet,
    stderr: quiet,
    stdin: (async function* () {})(),
    terminal: false,
    host,
    startDaemon: async () => {},
  };
  return birdStep(io, options, { paths: pathsFor('app', root), root, config: of, routerId: '203.0.113.7' });
}

t.test(
  'the distribution’s bird.conf is backed up and replaced; the password is in no argument',
  async (t) => {
    const root = await place(t, { 'etc/bird/bird.conf': DISTRIBUTION, password: 's3cret!\n' });
    const seen: string[] = [];
    const step = await stepAt(root, { ...UPSTREAM, bgpPasswordFile: join(root, 'password') }, (args) => {
      seen.push(...args);
      return {};
    });
    const note = await step.run();
    const file = join(root, 'etc/bird/bird.conf');
    const conf = await readFile(file, 'utf8');
    for (const line of [
      'router id 203.0.113.7;',
      'hold time 9;',
      'graceful restart off;',
      'multihop 2;',
      'password "s3cret!";',
      'neighbor 169.254.169.254 as 64515;',
      'local as 4288000123;',
      'net ~ [ 203.0.113.10/32, 203.0.113.11/32 ]',
      `include "${root}/etc/bird/bornemisza.d/*.conf";`,
    ]) {
      t.ok(conf.includes(line), line);
    }
    t.equal((await stat(file)).mode & 0o777, 0o640);
    t.equal(await readFile(`${file}.distribution`, 'utf8'), DISTRIBUTION);
    t.match(note, 'bird.conf.distribution');
    t.notMatch(`${step.title} ${note} ${seen.join(' ')}`, 's3cret');
    const again = await stepAt(root, UPSTREAM);
    t.match(again.already, 'kept', 'a second run finds it');
  },
);

t.test(
  'where BIRD is not installed yet its configuration is written and the missing package named',
  async (t) => {
    const root = await place(t);
    const note = await (await stepAt(root, UPSTREAM)).run();
    t.match(note, 'BIRD is not installed yet');
    t.match(await readFile(join(root, 'etc/bird/bird.conf'), 'utf8'), 'protocol bgp bornemisza_upstream');
  },
);

t.test('hold time and BFD of the configuration are in bird.conf', async (t) => {
  for (const [more, options, holds, lacks] of [
    ['', UPSTREAM, ['hold time 9;', 'keepalive time 3;'], ['bfd']],
    [
      'hold_time_s = 31\nbfd = true\n',
      UPSTREAM,
      [
        'hold time 31;',
        'local 203.0.113.7 as 4288000123;',
        'keepalive time 10;',
        'bfd yes;',
        'protocol bfd {\n\tmultihop { interval 100 ms; multiplier 3; };',
      ],
      ['hold time 9'],
    ],
    [
      'bfd = true\n',
      { bgpNeighbor: ['10.9.0.2'], bgpAs: 64515, bgpLocalAs: 65001 },
      ['protocol bfd {\n\tinterface "*" { interval 100 ms; multiplier 3; };'],
      ['multihop'],
    ],
  ] as const) {
    const root = await place(t);
    await (await stepAt(root, options, undefined, configOf(more))).run();
    const conf = await readFile(join(root, 'etc/bird/bird.conf'), 'utf8');
    for (const line of holds) t.ok(conf.includes(line), line);
    for (const word of lacks) t.notMatch(conf, word);
  }
  const own = `${DISTRIBUTION}protocol bgp mine {\n}\n`;
  const root = await place(t, { 'etc/bird/bird.conf': own });
  const note = await (await stepAt(root, {}, undefined, configOf('hold_time_s = 30\nbfd = true\n'))).run();
  t.match(note, '#\thold time 30;\n#\tbfd yes;', 'and in the lines for a file of the founder');
});

t.test('a provider’s preset gives its neighbours, and what the operator says wins', async (t) => {
  const write = async (options: Parameters<typeof birdStep>[1]) => {
    const root = await place(t);
    const step = await stepAt(root, options);
    await step.run();
    return { title: step.title, conf: await readFile(join(root, 'etc/bird/bird.conf'), 'utf8') };
  };
  const vultr = await write({ bgpProvider: 'vultr', bgpLocalAs: 4288000123 });
  t.match(vultr.title, 'BGP with 169.254.169.254 (AS 64515), hold time 9 s, only');
  t.match(vultr.conf, /neighbor 169\.254\.169\.254 as 64515;\n\tmultihop 2;\n\thold time 9;/);
  const metal = await write({ bgpProvider: 'vultr-bare-metal', bgpLocalAs: 4288000123, bgpMultihop: 3 });
  t.match(metal.conf, /neighbor 169\.254\.1\.1 as 20473;\n\tmultihop 3;/);
  const pair = await write({ bgpProvider: 'ingenuity' });
  t.match(pair.title, 'BGP with 100.64.64.64 and 100.64.64.65 (AS 65000)');
  t.match(pair.conf, /protocol bgp bornemisza_upstream \{\n\tlocal as 65100;\n\tneighbor 100\.64\.64\.64 /);
  t.match(pair.conf, /protocol bgp bornemisza_upstream2 \{\n\tlocal as 65100;\n\tneighbor 100\.64\.64\.65 /);
  t.match(
    (await write({ ...UPSTREAM, bgpProvider: 'ingenuity' })).conf,
    'neighbor 169.254.169.254 as 64515;',
  );
  await t.rejects(stepAt(await place(t), { bgpProvider: 'vultr' }), {
    code: 'bgp-incomplete',
    message: '--bgp-provider vultr needs --bgp-local-as',
  });
});

t.test('each session has the floating IPs of its neighbour’s family, and the filter has both', async (t) => {
  const both = configOf('', ['203.0.113.10', '2001:DB8::0010']);
  const write = async (options: Parameters<typeof birdStep>[1], of: Config, ...devices: [string[]?]) => {
    const root = await place(t);
    const step = await stepAt(root, options, undefined, of, { eth0: ['203.0.113.7', ...(devices[0] ?? [])] });
    await step.run();
    return { title: step.title, conf: await readFile(join(root, 'etc/bird/bird.conf'), 'utf8') };
  };
  const vultr = await write({ bgpProvider: 'vultr', bgpLocalAs: 65001 }, both);
  t.match(vultr.title, 'BGP with 169.254.169.254 and 2001:19f0:ffff::1 (AS 64515)');
  t.match(vultr.title, 'only 203.0.113.10, 2001:db8::10 may be announced');
  t.match(
    vultr.conf,
    `filter bornemisza_export {
	if proto = "bornemisza_floating" && net ~ [ 203.0.113.10/32 ] then accept;
	if proto = "bornemisza_floating" && net ~ [ 2001:db8::10/128 ] then accept;
	reject;
}`,
  );
  t.match(vultr.conf, /neighbor 169\.254\.169\.254 as 64515;[^}]*\n\tipv4 \{\n\t\timport none;/);
  t.match(vultr.conf, /neighbor 2001:19f0:ffff::1 as 64515;[^}]*\n\tipv6 \{\n\t\timport none;/);
  const alone = configOf('', ['2001:db8::10']);
  const six = await write({ bgpProvider: 'vultr', bgpLocalAs: 65001 }, alone);
  t.match(six.title, 'BGP with 2001:19f0:ffff::1 (AS 64515)');
  t.notMatch(six.conf, /169\.254|ipv4|203\.0\.113\.10/);
  t.notMatch((await write({ bgpProvider: 'vultr', bgpLocalAs: 65001 }, config)).conf, 'ipv6');

  const own = { bgpNeighbor: ['10.9.0.2', '2001:db8:9::2'], bgpAs: 64515, bgpLocalAs: 65001, bgpMultihop: 2 };
  const bfd = configOf('bfd = true\n', ['203.0.113.10', '2001:db8::10']);
  const { conf } = await write(own, bfd, ['fe80::1', '2001:db8:7::7']);
  t.match(conf, /local 203\.0\.113\.7 as 65001;\n\tneighbor 10\.9\.0\.2 /);
  t.match(conf, /local 2001:db8:7::7 as 65001;\n\tneighbor 2001:db8:9::2 /);
  for (const [options, of, message] of [
    [own, bfd, "BFD over several hops needs this host's public IPv6 address, and eth0 has none"],
    [UPSTREAM, both, 'the floating IP 2001:db8::10 has no session: no IPv6 neighbour is known'],
    [
      { bgpProvider: 'vultr-bare-metal', bgpLocalAs: 65001 },
      both,
      'the floating IP 2001:db8::10 has no session: no IPv6 neighbour is known',
    ],
    [UPSTREAM, alone, 'the floating IP 2001:db8::10 has no session: no IPv6 neighbour is known'],
    [own, config, 'the session with 2001:db8:9::2 would announce nothing: no floating IP is IPv6'],
  ] as const)
    await t.rejects(write(options, of), { code: 'bgp-incomplete', message });
  for (const bgpNeighbor of [['fe80::1'], ['2001:db8::1%eth0'], ['10.9.0.2', '']])
    await t.rejects(write({ ...own, bgpNeighbor }, config), { code: 'bgp-invalid' }, bgpNeighbor.join());

  const root = await place(t, { 'etc/bird/bird.conf': `${DISTRIBUTION}protocol bgp mine {\n}\n` });
  const lines = await (await stepAt(root, {}, undefined, both)).run();
  t.match(
    lines,
    '#\tipv4 { import none; export filter bornemisza_export; next hop self; };\n#\tipv6 { import none;',
  );
});

t.test('a founder’s own bird.conf is left alone and the lines to add are printed', async (t) => {
  const own = `${DISTRIBUTION}protocol bgp mine {\n}\n`;
  const root = await place(t, { 'etc/bird/bird.conf': own });
  const step = await stepAt(root, UPSTREAM);
  t.match(step.title, 'it is your own');
  t.match(await step.run(), 'filter bornemisza_export');
  t.equal(await readFile(join(root, 'etc/bird/bird.conf'), 'utf8'), own);
});

t.test('without a neighbour nothing is guessed about BGP', async (t) => {
  const root = await place(t);
  const step = await stepAt(root, {});
  t.match(step.title, 'no --bgp-neighbor and no --bgp-provider was given');
  t.match(await step.run(), 'include');
  t.same(await readdir(root), []);
});

t.test('a configuration that BIRD refuses leaves the old one in place', async (t) => {
  const root = await place(t, { 'etc/bird/bird.conf': DISTRIBUTION });
  const step = await stepAt(root, UPSTREAM, () => ({ code: 1, stderr: 'bird.conf:3 syntax error' }));
  await t.rejects(step.run(), { code: 'bird-config-refused', message: /bird\.conf:3 syntax error/ });
  t.equal(await readFile(join(root, 'etc/bird/bird.conf'), 'utf8'), DISTRIBUTION);
  t.same(await readdir(join(root, 'etc/bird')), ['bird.conf']);
});

t.test('what BIRD cannot take is refused before anything is written', async (t) => {
  for (const password of ['a"; } protocol static {', 'a\nb', '', 'x'.repeat(81), 'ü']) {
    const root = await place(t, { secret: password });
    await t.rejects(
      stepAt(root, { ...UPSTREAM, bgpPasswordFile: join(root, 'secret') }),
      { code: 'bgp-invalid', message: /password must be/ },
      JSON.stringify(password),
    );
  }
  const root = await place(t);
  await t.rejects(stepAt(root, { bgpNeighbor: ['169.254.169.254'] }), { code: 'bgp-incomplete' });
  await t.rejects(stepAt(root, { ...UPSTREAM, bgpNeighbor: ['router; }'] }), { code: 'bgp-invalid' });
  await t.rejects(stepAt(root, { ...UPSTREAM, bgpAs: 0 }), { code: 'bgp-invalid', message: /--bgp-as/ });
  await t.rejects(stepAt(root, { ...UPSTREAM, bgpLocalAs: 4_294_967_295 }), {
    code: 'bgp-invalid',
    message: /--bgp-local-as/,
  });
  await t.rejects(stepAt(root, { ...UPSTREAM, bgpMultihop: 256 }), {
    code: 'bgp-invalid',
    message: /multihop/,
  });
  await t.rejects(stepAt(root, { ...UPSTREAM, bgpPasswordFile: join(root, 'absent') }), {
    code: 'password-file-unreadable',
  });
});

t.test('a bird.conf is a distribution’s as long as it speaks to nobody', async (t) => {
  t.ok(isUntouched(DISTRIBUTION));
  for (const own of [
    'protocol ospf v3 {}',
    'protocol static { ipv4; route 10.0.0.0/8 unreachable; }',
    'include "/etc/bird/x.conf";',
    'filter x { accept; }',
    'template bgp x {}',
    'protocol direct { ipv4; }',
    'protocol direct mine { ipv4; interface "eth0"; }',
    'protocol kernel { learn; ipv4 { export all; }; }',
    'protocol kernel { ipv4 { export filter { krt_prefsrc = 192.0.2.1; accept; }; }; }',
    'eval 1 + 1;',
    'roa4 x;',
    'hostname "edge";',
    'protocol device { interface "eth0"; }',
    'graceful restart wait 5;',
  ]) {
    t.notOk(isUntouched(`${DISTRIBUTION}${own}\n`), own);
    t.ok(isUntouched(`${DISTRIBUTION}# ${own}\n`), `commented: ${own}`);
  }
});

t.test('an include counts as BIRD reads it: through other files, and not in a comment', async (t) => {
  const fragments = 'etc/bird/bornemisza.d';
  const cases: [string, Record<string, string>, boolean][] = [
    ['as written by init', { 'bird.conf': 'include "bornemisza.d/*.conf";' }, true],
    ['by its name', { 'bird.conf': 'include "bornemisza.d/bornemisza.conf";' }, true],
    ['after a comment of the same line', { 'bird.conf': '/* x */ include "bornemisza.d/*.conf";' }, true],
    ['in two lines', { 'bird.conf': 'include\n  "bornemisza.d/*.conf";' }, true],
    [
      'through a directory of the founder',
      {
        'bird.conf': 'include "conf.d/*.conf";',
        'conf.d/90-local.conf': 'include "../bornemisza.d/*.conf";',
      },
      true,
    ],
    ['commented', { 'bird.conf': '# include "bornemisza.d/*.conf";' }, false],
    ['commented as a block', { 'bird.conf': '/* include "bornemisza.d/*.conf"; */' }, false],
    ['in a string', { 'bird.conf': 'log "include bornemisza.d/x.conf" all;' }, false],
    ['another ending', { 'bird.conf': 'include "bornemisza.d/*.cfg";' }, false],
    ['another directory', { 'bird.conf': 'include "bornemisza.d.old/*.conf";' }, false],
    [
      'a hidden file of the founder',
      { 'bird.conf': 'include "conf.d/*";', 'conf.d/.x': 'include "../bornemisza.d/*.conf";' },
      false,
    ],
    [
      'a circle',
      { 'bird.conf': 'include "bird.conf"; include "conf.d/*";', 'conf.d/a': 'include "../bird.conf";' },
      false,
    ],
    ['nothing there', {}, false],
  ];
  for (const [what, files, expected] of cases) {
    const root = await place(
      t,
      Object.fromEntries(Object.entries(files).map(([name, text]) => [`etc/bird/${name}`, text])),
    );
    const target = join(root, fragments, 'bornemisza.conf');
    t.equal(await isIncluded(join(root, 'etc/bird/bird.conf'), target), expected, what);
  }
  t.same(includesIn('include "a#b"; # "c"\ninclude "d/*";'), ['a#b', 'd/*']);
});

t.test('BIRD’s files are where its unit says, else in the places of its build', async (t) => {
  const show = (argv: string): string =>
    `ExecStart={ path=/usr/sbin/bird ; argv[]=${argv} ; ignore_errors=no ; start_time=[n/a] ; pid=0 }\n`;
  const help = (file: string): string =>
    `Options: \n  -c <config-file>     Use given configuration file instead of\n                       ${file}\n  -d\n`;
  const cases: [what: string, argv: string, built: string, config: string, socket: string | undefined][] = [
    [
      'Debian',
      '/usr/sbin/bird -f -u $BIRD_RUN_USER',
      '/etc/bird/bird.conf',
      '/etc/bird/bird.conf',
      undefined,
    ],
    ['an rpm of BIRD', '/usr/sbin/bird -f -u bird -g bird', '/etc/bird.conf', '/etc/bird.conf', undefined],
    ['its unit', 'bird -f -c /etc/r/b.conf -s /run/b.ctl', '/etc/bird.conf', '/etc/r/b.conf', '/run/b.ctl'],
    ['without spaces', 'bird -c/etc/r/b.conf -s/run/b.ctl', '/etc/bird.conf', '/etc/r/b.conf', '/run/b.ctl'],
    ['not root’s', 'bird -c /home/x/bird.conf', '/etc/bird.conf', '/etc/bird.conf', undefined],
    ['out of /etc', 'bird -c /etc/../home/bird.conf', '/etc/bird.conf', '/etc/bird.conf', undefined],
  ];
  for (const [what, argv, built, config, socket] of cases) {
    const programs = {
      systemctl: () => ({ stdout: show(argv) }),
      bird: () => ({ stderr: help(built) }),
    };
    t.same(await birdPlace(fakeHost({ programs }), ''), { config, socket }, what);
  }
  t.same(optionsOfUnit(''), { config: undefined, socket: undefined });
  t.equal(builtWith('bird: not found'), undefined);
});

t.test('under --root the file that is there counts', async (t) => {
  const cases: [Record<string, string>, string][] = [
    [{}, 'etc/bird/bird.conf'],
    [{ 'etc/bird.conf': '' }, 'etc/bird.conf'],
    [{ 'etc/bird.conf': '', 'etc/bird/bird.conf': '' }, 'etc/bird/bird.conf'],
  ];
  for (const [files, expected] of cases) {
    const root = await place(t, files);
    t.equal((await birdPlace(fakeHost({}), root)).config, join(root, expected), JSON.stringify(files));
  }
});

t.test('the bird.conf of an rpm is replaced where it lies, beside the fragments in /etc/bird', async (t) => {
  const root = await place(t, { 'etc/bird.conf': DISTRIBUTION });
  await (await stepAt(root, UPSTREAM, () => ({}))).run();
  const conf = await readFile(join(root, 'etc/bird.conf'), 'utf8');
  t.match(conf, `include "${root}/etc/bird/bornemisza.d/*.conf";`);
  t.equal(await readFile(join(root, 'etc/bird.conf.distribution'), 'utf8'), DISTRIBUTION);
  t.same((await readdir(join(root, 'etc'))).sort(), ['bird.conf', 'bird.conf.distribution']);
});
