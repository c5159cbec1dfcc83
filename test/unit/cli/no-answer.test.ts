import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { turnOff, turnOn } from '../../../src/cli/firewall/turn.ts';
import type { Host, Io, Ran } from '../../../src/cli/io.ts';
import { thisHost } from '../../../src/cli/process-io.ts';
import { checkHost } from '../../../src/cli/doctor/host.ts';
import { checkSelinux } from '../../../src/cli/doctor/selinux.ts';
import { areaOf } from '../../../src/cli/doctor/check.ts';
import { checkUnits, unitsOfHost } from '../../../src/cli/doctor/units.ts';
import { birdPlace } from '../../../src/cli/setup/bird-place.ts';
import { readNetwork } from '../../../src/cli/setup/links.ts';
import { fakeHost, runCli } from './captured-io.ts';
import { place } from './place.ts';

const silence = (program: string): Partial<Ran> => ({
  code: -1,
  silence: { message: `${program} did not end within 20000 ms`, next: 'check the load: uptime' },
});
const NO_ANSWER = { code: 'program-no-answer', message: /did not end within/, next: /uptime/ };

t.test('no answer of a program is distinguished from a program that is not installed', async (t) => {
  const host = thisHost();
  const run: Host['run'] = (...given) => host.run(...given);
  const endless = await run('sleep', ['60'], { timeoutMs: 300 });
  t.match(endless, { code: -1, silence: { message: 'sleep did not end within 300 ms', next: /uptime/ } });
  const killed = await run('sh', ['-c', 'kill -9 $$']);
  t.match(killed, { code: -1, silence: { message: 'sh was killed', next: /journalctl -k/ } });
  const floods = await run('head', ['-c', '2000000', '/dev/zero']);
  t.match(floods, { code: -1, silence: { message: /^head printed more than/ } });
  const absent = await run('no-such-program', []);
  t.match(absent, { code: -1, stderr: 'no-such-program is not installed' });
  t.notOk(absent.silence);
  t.notOk((await run('false', [])).silence, 'an error is an answer');
  const byShell = await run('ip', ['monitor'], { timeoutMs: 300 });
  t.match(byShell, {
    code: -1,
    silence: { message: 'ip did not end within 300 ms', next: /^run ip by hand/ },
  });
});

t.test('init decides nothing without each answer of ip', async (t) => {
  const whole: Record<string, string> = {
    addr: JSON.stringify([
      { ifname: 'eth0', addr_info: [{ family: 'inet', local: '203.0.113.7', prefixlen: 24 }] },
      { ifname: 'eth1', addr_info: [{ family: 'inet', local: '10.0.0.11', prefixlen: 24 }] },
      // Taken for a device that faces the internet where only addresses are known.
      { ifname: 'bm-float', addr_info: [{ family: 'inet', local: '203.0.113.10', prefixlen: 32 }] },
    ]),
    '-4': JSON.stringify([{ dst: 'default', dev: 'eth0' }]),
    '-6': '[]',
  };
  const faults: readonly (readonly [
    string,
    (text: string) => Partial<Ran>,
    { code: string; message?: RegExp },
  ])[] = [
    ['does not end', () => silence('ip'), NO_ANSWER],
    ['ends with 1', () => ({ code: 1, stderr: 'RTNETLINK answers: busy\nx' }), { code: 'program-failed' }],
    [
      'prints half',
      (text) => ({ stdout: text === '[]' ? '[' : text.slice(0, text.length / 2) }),
      { code: 'program-failed', message: /its answer is not whole/ },
    ],
  ];
  for (const question of Object.keys(whole))
    for (const [what, fault, expected] of faults) {
      const ip = (args: readonly string[]): Partial<Ran> => {
        const asked = Object.keys(whole).find((each) => args.includes(each)) ?? '';
        const stdout = whole[asked] ?? '';
        return asked === question ? fault(stdout) : { stdout };
      };
      const host = fakeHost({
        devices: { eth0: ['203.0.113.7'], eth1: ['10.0.0.11'], 'bm-float': ['203.0.113.10'] },
        programs: { ip },
      });
      await t.rejects(readNetwork(host), expected, `${question} ${what}`);
      const root = await place(t);
      const { code, err } = await runCli(['init', '--role', 'app', '--root', root], { host });
      t.equal(code, 1, `${question} ${what}`);
      t.match(err, /ip did not end|`ip .*` failed/);
      t.same(await readdir(root), [], 'nothing was written');
    }
  t.equal((await readNetwork(fakeHost({}))).addresses.length, 3, 'without ip the kernel’s list must do');
});

t.test('doctor says which program gave no answer, and not that it is not installed', async (t) => {
  const programs = Object.fromEntries(
    ['haproxy', 'bird', 'timedatectl', 'systemctl', 'selinuxenabled'].map((program) => [
      program,
      () => silence(program),
    ]),
  );
  const host = fakeHost({ programs });
  const checks = [
    ...(await checkHost(host, '/nowhere', ['app'], true)),
    ...(await checkUnits(host, unitsOfHost())),
  ];
  for (const [name = '', program = ''] of [
    ['clock', 'timedatectl'],
    ['haproxy', 'haproxy'],
    ['bird', 'bird'],
    ['units', 'systemctl'],
  ])
    t.match(
      checks.find((each) => each.name === name),
      { state: 'warn', detail: `not checked: ${program} did not end within 20000 ms`, next: /uptime/ },
      name,
    );
  await t.rejects(checkSelinux(host, areaOf('app'), [443]), NO_ANSWER, 'SELinux may be on');
  await t.rejects(birdPlace(host, ''), NO_ANSWER, 'its unit may name another file');
});

t.test('the firewall does not call itself off, or alone, where nobody answered', async (t) => {
  const root = await place(t);
  const io = (programs: Readonly<Record<string, () => Partial<Ran>>>): Io =>
    ({ host: fakeHost({ programs }), stdout: { write: () => {} } }) as unknown as Io;
  const nft = () => silence('nft');
  await t.rejects(turnOff(io({ systemctl: () => ({}), nft }), root), NO_ANSWER);
  const systemctl = () => silence('systemctl');
  await t.rejects(turnOn(io({ systemctl }), root, { beside: false, withinS: 120 }), NO_ANSWER);
  const shown = await runCli(['firewall', 'status', '--root', root], {
    host: fakeHost({ programs: { nft } }),
  });
  t.equal(shown.code, 1);
  t.match(shown.err, /nft did not end within/);
  t.notMatch(shown.out, 'off');
  const doctor = await runCli(['doctor', '--json', '--root', join(root, 'x')], {
    host: fakeHost({ programs: { nft } }),
  });
  t.match(doctor.out, '"set-up"', 'the other checks go on');
});
