import { mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { Ran } from '../../../src/cli/io.ts';
import { proves, sshSince, trialOrigin } from '../../../src/cli/firewall/session.ts';
import { askFirewall, checkFirewall } from '../../../src/cli/doctor/firewall.ts';
import { renderBase } from '../../../src/plugins/firewall/rules.ts';
import { gatherBase } from '../../../src/cli/firewall/gather.ts';
import type { Io } from '../../../src/cli/io.ts';
import { fakeHost, runCli } from './captured-io.ts';
import { place } from './place.ts';

const APP = `
[node]
cluster = "shop"
host = "app1"
[network]
private_address = "10.0.0.11"
private_network = "10.0.0.0/24"
private_device = "eth1"
public_device = "eth0"
[floating]
mode = "bgp"
addresses = ["203.0.113.7"]
[firewall]
allow = ["tcp/9000 from 192.0.2.0/24"]
`;
const BIRD = 'protocol bgp up {\n\tneighbor 169.254.169.254 as 64515;\n\tmultihop 2;\n}\n';
type Program = (args: readonly string[]) => Partial<Ran>;

/** A host on which each call is written down; nft says that it loaded whatever the trial holds. */
async function scene(t: Test, changed: Readonly<Record<string, Program>> = {}, uid = 0) {
  const root = await place(t, {
    'etc/bornemisza/app.toml': APP,
    'etc/bird/bird.conf': BIRD,
    'run/keep': '',
  });
  const calls: string[] = [];
  let loaded = '';
  const programs: Record<string, Program> = {
    sshd: () => ({ stdout: 'port 922\nport 22\n' }),
    nft: (args) => ({ code: 0, stdout: args[0] === 'list' ? loaded : '' }),
    systemctl: (args) => ({ code: args[0] === 'is-active' ? 3 : 0 }),
    'systemd-run': () => ({ code: 0 }),
    '/usr/libexec/bornemisza/firewall-undo': () => ({ code: 0 }),
    ...changed,
  };
  const trial = join(root, 'run/bornemisza-firewall.trial');
  const written = Object.fromEntries(
    Object.entries(programs).map(([name, program]): [string, Program] => [
      name,
      (args) => {
        calls.push([name, ...args].join(' '));
        return program(args);
      },
    ]),
  );
  const run = async (...args: string[]) => {
    const host = fakeHost({ programs: written, uid });
    return await runCli(['firewall', ...args, '--root', root], {
      host: {
        ...host,
        run: async (program, argv) => {
          loaded = await readFile(trial, 'utf8').catch(() => loaded);
          return host.run(program, argv);
        },
      },
    });
  };
  return { root, trial, base: join(root, 'etc/bornemisza/firewall.base'), calls, run };
}

t.test('the timer that takes the rules back runs before they can count', async (t) => {
  const { run, calls, trial } = await scene(t);
  const { code, out, err } = await run('on');
  t.equal(code, 0, err);
  for (const line of [
    'tcp 922, 22 (ssh): anywhere',
    'tcp 8443, 8444: app nodes',
    'BGP and BFD: 169.254.169.254',
    'tcp 9000: 192.0.2.0/24',
  ])
    t.match(out, line);
  const at = (start: string): number => calls.findIndex((each) => each.startsWith(start));
  t.ok(at('nft -c -f') >= 0);
  t.ok(at('nft -c -f') < at('systemd-run --unit=bornemisza-firewall-undo --on-active=120'));
  t.ok(at('systemd-run') < at('systemctl start bornemisza-firewall.service'));
  t.match(await readFile(trial, 'utf8'), /udp dport 4784 accept[^]*# asked for at: \d+ (ssh|console)\n$/);
});

t.test('nothing is loaded where something is missing', async (t) => {
  const cases: (readonly [words: string, exit: number, programs: Readonly<Record<string, Program>>])[] = [
    [
      'filters here as well',
      5,
      { systemctl: (args) => ({ code: args.includes('firewalld.service') ? 0 : 3 }) },
    ],
    ['could lock you out', 1, { sshd: () => ({ code: 255, stderr: 'no hostkeys available' }) }],
    ['nft refuses the rules: syntax error', 1, { nft: () => ({ code: 1, stderr: 'syntax error' }) }],
    [
      'systemd-run --unit=bornemisza-firewall-undo failed: no bus',
      1,
      { 'systemd-run': () => ({ code: 1, stderr: 'no bus' }) },
    ],
  ];
  for (const [named, exit, programs] of cases) {
    const { run, calls, trial } = await scene(t, programs);
    const { code, err } = await run('on');
    t.equal(code, exit, err);
    t.match(err, named);
    t.notOk(
      calls.some((each) => each.startsWith('systemctl start')),
      named,
    );
    await t.rejects(readFile(trial), { code: 'ENOENT' }, named);
  }
  const { run } = await scene(t, {}, 1000);
  for (const verb of ['on', 'confirm', 'off', 'status']) t.equal((await run(verb)).code, 4, verb);
});

t.test('without a role there is nothing to open', async (t) => {
  const { run, root, calls } = await scene(t);
  await rm(join(root, 'etc/bornemisza/app.toml'));
  const { code, err } = await run('on');
  t.equal(code, 1);
  t.match(
    err,
    /no role is set up on this host, so there are no ports to open\n {2}next: run `sudo bornemisza init`/,
  );
  t.notOk(calls.some((each) => each.startsWith('nft')));
});

t.test('without the ports of sshd, or when the unit does not start, no rule changes', async (t) => {
  const silent = await scene(t, {
    sshd: () => ({ code: 1, stderr: 'sshd: no hostkeys available\nexiting' }),
  });
  const { code, err } = await silent.run('on');
  t.equal(code, 1);
  t.match(
    err,
    /does not report its ports \(sshd: no hostkeys available\); rules without them could lock you out\n/,
  );
  t.match(err, / {2}next: run `sudo sshd -T .*; no rule has changed\n/);
  t.notOk(silent.calls.some((each) => each.startsWith('nft')));
  const systemctl: Program = ([verb]) =>
    verb === 'start'
      ? { code: 1, stderr: 'Job failed.\nSee the journal.' }
      : { code: verb === 'is-active' ? 3 : 0 };
  const failed = await scene(t, { systemctl });
  t.match(
    (await failed.run('on')).err,
    /systemctl start failed: Job failed\.\n {2}next: run `systemctl start bornemisza-firewall\S*` by hand/,
  );
});

t.test('--beside works next to another firewall', async (t) => {
  const { run, trial } = await scene(t, { systemctl: () => ({ code: 0 }) });
  t.equal((await run('on', '--beside')).code, 0);
  t.match(await readFile(trial, 'utf8'), 'policy accept');
});

t.test('rules that the helper does not load are removed', async (t) => {
  t.setTimeout(60_000);
  const { run, calls } = await scene(t, { nft: () => ({ code: 0, stdout: 'table inet bornemisza' }) });
  t.match((await run('on')).err, 'did not load the new rules');
  t.equal(calls.at(-1), '/usr/libexec/bornemisza/firewall-undo');
});

t.test('confirm makes the trial the base of the next boot', async (t) => {
  const { run, trial, base, calls } = await scene(t);
  t.match((await run('confirm')).err, 'there is nothing to confirm');
  await run('on');
  const text = await readFile(trial, 'utf8');
  const rules = text.slice(0, text.indexOf('# asked for at'));
  for (const origin of ['# asked for at: 99999999999 ssh\n', '']) {
    await writeFile(trial, `${rules}${origin}`);
    const { code, err } = await run('confirm');
    t.equal(code, 5);
    t.match(err, 'the ssh connection of this shell is older than the rules');
  }
  // Whether this test runs on a console or over ssh: its shell is younger than boot.
  await writeFile(trial, `${rules}# asked for at: 0 console\n`);
  t.equal((await run('confirm')).code, 0);
  t.equal(await readFile(base, 'utf8'), rules);
  await t.rejects(readFile(trial), { code: 'ENOENT' });
  t.ok(calls.includes('systemctl stop bornemisza-firewall-undo.timer'));
  t.ok(calls.includes('systemctl enable bornemisza-firewall.service'));
  t.equal((await run('off')).code, 0);
  await t.rejects(readFile(base), { code: 'ENOENT' });
});

/** A process as proc(5) shows it. */
interface Seen {
  readonly parent: number;
  readonly uid: number;
  readonly exe: string;
  readonly ticks: number;
  readonly name?: string;
}

async function procOf(t: Test, processes: Readonly<Record<number, Seen>>): Promise<string> {
  const proc = t.testdir();
  for (const [pid, { parent, uid, exe, ticks, name = 'x' }] of Object.entries(processes)) {
    await mkdir(join(proc, pid));
    const ids = [uid, uid, uid, uid].join('\t');
    await writeFile(join(proc, pid, 'status'), `Name:\t${name}\nPPid:\t${parent}\nUid:\t${ids}\n`);
    await writeFile(join(proc, pid, 'stat'), `${pid} (${name}) S ${parent} ${'0 '.repeat(17)}${ticks} 0\n`);
    await symlink(exe, join(proc, pid, 'exe'));
  }
  return proc;
}

t.test('only root’s own sshd says since when a connection is there', async (t) => {
  const shell = { parent: 30, uid: 1000, exe: '/usr/bin/bash', ticks: 800 };
  const command = { parent: 40, uid: 0, exe: '/usr/libexec/bornemisza/node', ticks: 900 };
  const cases: Readonly<
    Record<string, readonly [since: number | undefined, Readonly<Record<number, Seen>>]>
  > = {
    'a user with sudo': [
      700,
      {
        10: { parent: 1, uid: 0, exe: '/usr/sbin/sshd', ticks: 100 },
        20: { parent: 10, uid: 0, exe: '/usr/sbin/sshd', ticks: 700 },
        30: { parent: 20, uid: 1000, exe: '/usr/sbin/sshd', ticks: 710 },
      },
    ],
    'root, with OpenSSH 9.8, upgraded since': [
      701,
      {
        10: { parent: 1, uid: 0, exe: '/usr/sbin/sshd', ticks: 100 },
        30: { parent: 10, uid: 0, exe: '/usr/libexec/openssh/sshd-session (deleted)', ticks: 701 },
      },
    ],
    'an sshd of the user’s own, under a name that looks like fields': [
      undefined,
      { 30: { parent: 1, uid: 1000, exe: '/home/u/sshd', ticks: 999, name: ') S 1 0 0 (sshd' } },
    ],
    'tmux, which outlives its connection': [
      undefined,
      { 30: { parent: 1, uid: 1000, exe: '/usr/bin/tmux', ticks: 600 } },
    ],
    'a process that has ended meanwhile': [undefined, {}],
  };
  for (const [what, [since, processes]] of Object.entries(cases)) {
    const proc = await procOf(t, { ...processes, 40: shell, 50: command });
    t.equal(await sshSince(proc, 50), since, what);
    t.strictSame(
      await trialOrigin(proc, 50),
      { atTicks: 900, by: since === undefined ? 'console' : 'ssh' },
      what,
    );
  }
});

t.test('a connection proves the rules when it began after them', (t) => {
  const cases: readonly (readonly [by: 'ssh' | 'console', since: number | undefined, is: boolean])[] = [
    ['ssh', 899, false],
    ['ssh', 900, false],
    ['ssh', 901, true],
    ['ssh', undefined, false],
    ['console', undefined, true],
    ['console', 899, false],
    ['console', 901, true],
  ];
  for (const [by, since, is] of cases) t.equal(proves({ atTicks: 900, by }, since), is, `${by} ${since}`);
  t.end();
});

t.test('status shows what the kernel has', async (t) => {
  const listing = `table inet bornemisza {
	set apps {
		type ipv4_addr
		elements = { 10.0.0.11, 10.0.0.12,
			     10.0.0.13 }
	}
	set dbs {
		type ipv4_addr
	}
	chain input { iifname "eth1" counter packets 3 bytes 180 reject
		counter packets 40 bytes 2400 drop }
}`;
  const { run, base } = await scene(t, { nft: () => ({ code: 0, stdout: listing }) });
  await writeFile(base, '');
  t.match(JSON.parse((await run('status', '--json')).out), {
    state: 'on',
    apps: ['10.0.0.11', '10.0.0.12', '10.0.0.13'],
    dbs: [],
    refusedPackets: 43,
  });
  const gone = await scene(t, { nft: () => ({ code: 1, stderr: 'No such file or directory' }) });
  t.match((await gone.run('status')).out, 'firewall: off');
  await writeFile(gone.base, '');
  t.match((await gone.run('status')).out, 'should be on');
  await rm(gone.base);
});

t.test('the neighbours of both families are read from bird.conf, and nothing else', async (t) => {
  const text = `${BIRD}protocol bgp up6 {
	neighbor 2001:19f0:ffff::1 as 64515;
	# neighbor 2001:db8::9 as 1;
}
protocol bgp link { neighbor fe80::1 % 'eth0' as 64515; }
protocol bgp link2 {
	neighbor fe80::2 % 'eth0' as 64515;
	neighbor range 10.0.0.0/8 as 1;
}
`;
  const root = await place(t, { 'etc/bornemisza/app.toml': APP, 'etc/bird/bird.conf': text });
  const host = fakeHost({ programs: { sshd: () => ({ stdout: 'port 22\n' }) } });
  const { neighbours } = await gatherBase(host, root, false);
  t.strictSame(
    neighbours.map(({ address }) => address),
    ['169.254.169.254', '2001:19f0:ffff::1', 'fe80::2'],
  );
});

t.test('doctor checks that the rules are loaded, confirmed and current', async (t) => {
  const listing = 'table inet bornemisza {\n\tset apps {\n\t\telements = { 10.0.0.11 }\n\t}\n}';
  const base = 'etc/bornemisza/firewall.base';
  const trial = 'run/bornemisza-firewall.trial';
  type Case = readonly [
    what: string,
    files: Readonly<Record<string, string>>,
    stands: boolean,
    uid: number,
    found: string,
  ];
  const cases: readonly Case[] = [
    ['it was never on', {}, false, 0, 'ok off'],
    ['it should be on and is not', { [base]: 'rules' }, false, 0, 'fail it should be on'],
    ['a trial', { [base]: 'rules', [trial]: 'rules' }, true, 0, 'warn the rules are on trial'],
    ['the rules of now', { [base]: 'NOW' }, true, 0, 'ok on: 1 app nodes'],
    ['the rules of now, beside another firewall', { [base]: 'BESIDE' }, true, 0, 'ok on: 1 app nodes'],
    [
      'rules of before a change',
      { [base]: '# bornemisza firewall 1 10.0.0.0/24 app 0011223344556677\n' },
      true,
      0,
      'warn ports, roles',
    ],
    ['nobody but root can see it', { [base]: 'rules' }, true, 1000, ''],
  ];
  for (const [what, files, stands, uid, found] of cases) {
    const host = fakeHost({
      uid,
      programs: {
        sshd: () => ({ stdout: 'port 922\nport 22\n' }),
        nft: () => ({ code: stands ? 0 : 1, stdout: stands ? listing : '' }),
      },
    });
    const root = await place(t, { 'etc/bornemisza/app.toml': APP, 'etc/bird/bird.conf': BIRD, ...files });
    if (['NOW', 'BESIDE'].includes(files[base] ?? '')) {
      const { text } = renderBase(await gatherBase(host, root, files[base] === 'BESIDE'));
      await writeFile(join(root, base), text);
    }
    const [check] = checkFirewall(await askFirewall({ host } as Io, root));
    t.match(check === undefined ? '' : `${check.state} ${check.detail}`, found, what);
    t.equal(check === undefined, found === '', what);
  }
});
