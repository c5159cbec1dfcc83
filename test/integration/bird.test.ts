import type { ChildProcess } from 'node:child_process';
import { appendFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { readDevices } from '../../src/plugins/bird/device.ts';
import { BirdPlugin } from '../../src/plugins/bird/plugin.ts';
import type { BirdDesired } from '../../src/plugins/bird/desired.ts';
import { tell } from '../../src/plugins/bird/control.ts';
import { runCommand } from '../../src/host/command.ts';
import type { PluginError } from '../../src/plugins/contract.ts';
import { faultOf, reportOf } from '../../src/plugins/bird/report.ts';
import { converge, looking } from './haproxy-bed.ts';
import { endChild } from '../support/end-child.ts';
import { testInNamespace } from '../support/namespace.ts';
import { until } from '../support/until.ts';
import { spawnWithUs } from '../support/with-us.ts';

/** A node with a real BIRD and a provider with another, each in a network namespace of its own. */
/** LAB_BIRD=DIRECTORY runs the same tests on the `bird` there, e.g. a version that was built from its source. */
const LAB_BIRD = process.env['LAB_BIRD'] ?? '';
const BIRD = LAB_BIRD === '' ? 'bird' : join(LAB_BIRD, 'bird');
testInNamespace(import.meta.filename, ['--net'], 'a node and its provider', inside);

async function inside(t: Test): Promise<void> {
  const root = await mkdtemp(join(tmpdir(), 'bm-bird-'));
  const children: ChildProcess[] = [];
  const fragments = join(root, 'fragments');
  const control = join(root, 'node.ctl');
  let devicesRead = 0;
  const plugin = new BirdPlugin({
    fragmentDirectory: fragments,
    controlSocket: control,
    binary: BIRD,
    readDevices: (signal) => {
      devicesRead += 1;
      return readDevices(signal);
    },
  });
  t.teardown(async () => {
    await plugin.close();
    for (const child of children.toReversed()) await endChild(child, 'SIGKILL');
    await rm(root, { recursive: true, force: true });
  });
  await mkdir(fragments);

  const run = async (program: string, ...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await runCommand(program, args, { timeoutMs: 5000 });
    if (code !== 0) throw new Error(`${program} ${args.join(' ')}: ${stderr}`);
    return stdout;
  };
  const start = (program: string, ...args: string[]): ChildProcess => {
    const child = spawnWithUs(program, args, { stdio: 'ignore' });
    children.push(child);
    return child;
  };

  // The provider.
  const holder = start('unshare', '--net', 'sleep', 'infinity');
  const provider = ['-t', String(holder.pid), '-n'];
  const [own, other] = await Promise.all([
    run('readlink', '/proc/self/ns/net'),
    until(
      async () => {
        const there = await run('readlink', `/proc/${holder.pid}/ns/net`);
        return there !== (await run('readlink', '/proc/self/ns/net'));
      },
      { what: 'the namespace is there' },
    ).then(() => run('readlink', `/proc/${holder.pid}/ns/net`)),
  ]);
  t.not(own, other);
  await run('ip', 'link', 'set', 'lo', 'up');
  await run('ip', 'link', 'add', 'pub', 'type', 'veth', 'peer', 'name', 'cust');
  await run('ip', 'link', 'set', 'cust', 'netns', String(holder.pid));
  await run('ip', 'addr', 'add', '10.9.0.1/24', 'dev', 'pub');
  await run('ip', 'addr', 'add', '2001:db8:9::1/64', 'dev', 'pub', 'nodad');
  await run('ip', 'link', 'set', 'pub', 'up');
  for (const args of [
    ['link', 'set', 'lo', 'up'],
    ['addr', 'add', '10.9.0.2/24', 'dev', 'cust'],
    ['addr', 'add', '2001:db8:9::2/64', 'dev', 'cust', 'nodad'],
    ['link', 'set', 'cust', 'up'],
  ]) {
    await run('nsenter', ...provider, 'ip', ...args);
  }
  const providerConf = join(root, 'provider.conf');
  await writeFile(
    providerConf,
    `router id 10.9.0.2;
protocol device {}
protocol direct { ipv4; interface "cust"; }
protocol kernel { ipv4 { export where source = RTS_BGP; }; }
protocol kernel { ipv6 { export where source = RTS_BGP; }; }
template bgp peer {
  hold time 9; connect delay time 1; connect retry time 1; error wait time 1, 2;
}
protocol bgp node from peer {
  local 10.9.0.2 as 64515; neighbor 10.9.0.1 as 64512;
  ipv4 { import all; export none; };
  ipv6 { import all; export none; };
}
protocol bgp node6 from peer {
  local 2001:db8:9::2 as 64515; neighbor 2001:db8:9::1 as 64512;
  ipv6 { import all; export none; };
}
`,
  );
  start('nsenter', ...provider, BIRD, '-f', '-c', providerConf, '-s', join(root, 'provider.ctl'));
  const nodeConf = join(root, 'bird.conf');
  const nodeText = `router id 10.9.0.1;
protocol device {}
filter floating { if net ~ [ 192.0.2.7/32, 192.0.2.8/32 ] then accept; reject; }
protocol bgp uplink {
  local 10.9.0.1 as 64512; neighbor 10.9.0.2 as 64515;
  hold time 9; graceful restart off; connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 { import none; export filter floating; };
}
include "${fragments}/*.conf";
`;
  await writeFile(nodeConf, nodeText);
  const startBird = () => start(BIRD, '-f', '-c', nodeConf, '-s', control);

  const desired: BirdDesired = {
    device: 'bm-float',
    addresses: ['192.0.2.7', '192.0.2.8'],
    mode: 'equal',
    rank: 0,
    announce: true,
    why: 'this node is up',
  };
  const routes = async (): Promise<string> =>
    run('nsenter', ...provider, 'ip', 'route', 'show', 'proto', 'bird');
  const announced = async (...addresses: string[]): Promise<boolean> => {
    const there = (await routes()).split('\n').flatMap((line) => line.split(' ')[0] || []);
    return there.toSorted().join() === addresses.join();
  };
  const floating = async (): Promise<string[]> => {
    const text = await run('ip', '-4', '-o', 'addr', 'show', 'dev', 'bm-float');
    return [...text.matchAll(/inet (\S+)/g)].map(([, address = '']) => address).sort();
  };
  const summaries = (changes: readonly { summary: string }[]): string[] =>
    changes.map(({ summary }) => summary);
  const failure = async (from: Promise<unknown>): Promise<PluginError> =>
    from.then(
      () => Promise.reject(new Error('no error')),
      (error: PluginError) => error,
    );

  let bird: ChildProcess;

  await t.test(
    'without BIRD: the device, the addresses and the fragment are there, and it is tried again',
    async (t) => {
      const error = await failure(converge(plugin, desired));
      t.match(error, {
        code: 'bird-not-running',
        outcome: 'retry',
        next: /systemctl start bird/,
      });
      t.same(await floating(), ['192.0.2.7/32', '192.0.2.8/32']);
      t.match(await readFile(join(fragments, 'bornemisza.conf'), 'utf8'), /disabled no;/);
    },
  );

  await t.test('BIRD starts from the fragment and the provider learns both addresses', async (t) => {
    bird = startBird();
    await until(() => announced('192.0.2.7', '192.0.2.8'), { what: 'it announces' });
    t.same(await converge(plugin, desired), []);
    const { running, localAs } = await plugin.observe(AbortSignal.timeout(5000));
    t.match(running?.sessions, [{ name: 'uplink', state: 'Established', holdTimeS: 9 }]);
    t.equal(localAs, 64512);
  });

  await t.test(
    'withdraw and announce without a reconfiguration, in milliseconds at the provider',
    async (t) => {
      const times: number[] = [];
      for (let round = 0; round < 5; round += 1) {
        await plugin.observe(AbortSignal.timeout(5000));
        devicesRead = 0;
        const start = performance.now();
        const out = await converge(plugin, { ...desired, announce: false, why: 'maintenance' });
        await until(() => announced(), { what: 'it is gone upstream' });
        times.push(performance.now() - start);
        // Unless ten seconds went by.
        t.ok(devicesRead === 0 || performance.now() - start > 9000, 'no process is started for it');
        t.same(summaries(out), ['floating IPs: withdrawn (maintenance)', 'bornemisza.conf: rewritten']);
        t.same(
          await floating(),
          ['192.0.2.7/32', '192.0.2.8/32'],
          'the addresses stay: this node still answers itself',
        );
        const back = await converge(plugin, desired);
        await until(() => announced('192.0.2.7', '192.0.2.8'), { what: 'it is back upstream' });
        t.same(summaries(back), ['bornemisza.conf: rewritten', 'floating IPs: announced (this node is up)']);
      }
      t.comment(
        `plan to gone upstream, observation included: ${times.map((ms) => ms.toFixed(0)).join(', ')} ms`,
      );
    },
  );

  await t.test('ranked: the path gets longer by the rank, and nothing else', async (t) => {
    const ranked: BirdDesired = { ...desired, mode: 'ranked', rank: 2 };
    t.match(summaries(await converge(plugin, ranked)), [/rewritten/, /the fragment changed/]);
    const path = async (): Promise<string> => {
      const [lines = []] = await tell(join(root, 'provider.ctl'), ['show route 192.0.2.7/32 all']);
      // BIRD 3 has another word for it.
      return lines.flatMap(({ text }) => /^\s*(?:BGP\.as_path|bgp_path): (.*)$/.exec(text)?.[1] ?? []).join();
    };
    await until(async () => (await path()) === '64512 64512 64512', { what: 'the provider sees it' });
    await converge(plugin, desired);
    await until(async () => (await path()) === '64512', { what: 'and sees it go' });
    await until(() => announced('192.0.2.7', '192.0.2.8'), { what: 'both announced' });
  });

  await t.test('a change by hand is noticed and undone', async (t) => {
    const told: string[] = [];
    const endWatch = plugin.watch((what) => told.push(what));
    t.teardown(endWatch);
    await looking(join(fragments, 'bornemisza.conf'), told);
    const hands: [string, () => Promise<unknown>][] = [
      ['an address taken off', () => run('ip', 'addr', 'del', '192.0.2.7/32', 'dev', 'bm-float')],
      ['another address put on', () => run('ip', 'addr', 'add', '192.0.2.99/32', 'dev', 'bm-float')],
      ['the device taken down', () => run('ip', 'link', 'set', 'bm-float', 'down')],
      ['the device deleted', () => run('ip', 'link', 'del', 'bm-float')],
      ['the protocol disabled', () => tell(control, ['disable bornemisza_floating'])],
      ['the fragment edited', () => appendFile(join(fragments, 'bornemisza.conf'), '# mine\n')],
      ['the fragment deleted', () => rm(join(fragments, 'bornemisza.conf'))],
    ];
    const times: string[] = [];
    for (const [what, hand] of hands) {
      const before = told.length;
      await hand();
      const sinceMs = performance.now();
      await until(() => told.length > before, { what: `${what} is noticed` });
      const ms = performance.now() - sinceMs;
      const noticed = told.length;
      const changes = await converge(plugin, desired);
      times.push(`${what} ${ms.toFixed(0)} ms`);
      t.ok(changes.length > 0, `${what}: ${summaries(changes).join('; ')}`);
      t.same(await floating(), ['192.0.2.7/32', '192.0.2.8/32']);
      await until(() => announced('192.0.2.7', '192.0.2.8'), { what: `${what}: announced again` });
      t.same(await converge(plugin, desired), []);
      await until(() => told.length > noticed, { what: 'the repair is noticed' });
    }
    t.comment(times.join(', '));
  });

  await t.test('BIRD that is killed is noticed at once; when it is back nothing is left to do', async (t) => {
    const told: string[] = [];
    t.teardown(plugin.watch((what) => told.push(what)));
    await looking(join(fragments, 'bornemisza.conf'), told);
    const start = performance.now();
    await endChild(bird, 'SIGKILL');
    await until(() => told.includes('BIRD is not running'), {
      what: 'its end is noticed',
      deadlineMs: 20_000,
    });
    t.comment(`noticed after ${(performance.now() - start).toFixed(0)} ms`);
    t.match(await failure(converge(plugin, desired)), { code: 'bird-not-running', outcome: 'retry' });
    t.match(await failure(converge(plugin, { ...desired, announce: false })), { code: 'bird-not-running' });
    bird = startBird();
    await until(
      () =>
        tell(control, ['show status']).then(
          () => true,
          () => false,
        ),
      { what: 'it answers' },
    );
    t.same(
      await converge(plugin, { ...desired, announce: false }),
      [],
      'it starts withdrawn, as the file says',
    );
    await converge(plugin, desired);
    await until(() => announced('192.0.2.7', '192.0.2.8'), { what: 'announced again' });
  });

  await t.test(
    'a bird.conf that is broken by hand: one sentence, the former fragment, and the announcement stays',
    async (t) => {
      const before = await readFile(join(fragments, 'bornemisza.conf'), 'utf8');
      await writeFile(nodeConf, `${nodeText}\nnonsense here;\n`);
      const error = await failure(converge(plugin, { ...desired, addresses: ['192.0.2.7'] }));
      t.match(error, { code: 'bird-config-refused', outcome: 'retry', message: /bird\.conf:\d+/ });
      t.equal(await readFile(join(fragments, 'bornemisza.conf'), 'utf8'), before);
      t.ok((await announced('192.0.2.7')) || (await announced('192.0.2.7', '192.0.2.8')));
      await writeFile(nodeConf, nodeText);
      await converge(plugin, { ...desired, addresses: ['192.0.2.7'] });
      await until(() => announced('192.0.2.7'), { what: 'one address less' });
      await converge(plugin, desired);
      await until(() => announced('192.0.2.7', '192.0.2.8'), { what: 'both again' });
    },
  );

  await t.test('a bird.conf that does not include the fragment is named as the cause', async (t) => {
    await writeFile(nodeConf, nodeText.replace(/include .*/, ''));
    await tell(control, ['configure']);
    const error = await failure(converge(plugin, desired));
    t.match(error, { code: 'bird-command-refused', message: /does bird\.conf include/ });
    await writeFile(nodeConf, nodeText);
    await converge(plugin, desired);
    await until(() => announced('192.0.2.7', '192.0.2.8'), { what: 'announced again' });
  });

  await t.test(
    'a provider address that was not configured never leaves, whatever the device has',
    async (t) => {
      await run('ip', 'addr', 'add', '198.51.100.1/32', 'dev', 'bm-float');
      await tell(control, ['configure']);
      await new Promise((resolve) => setTimeout(resolve, 300));
      t.ok(await announced('192.0.2.7', '192.0.2.8'));
      t.same(summaries(await converge(plugin, desired)), ['198.51.100.1/32: removed from bm-float']);
    },
  );

  await t.test(
    'another device: the addresses move, and the former device answers for them no longer',
    async (t) => {
      await converge(plugin, { ...desired, device: 'bm-other' });
      await until(() => announced('192.0.2.7', '192.0.2.8'), { what: 'announced from there' });
      t.same(await floating(), []);
    },
  );

  await t.test('what is reported is what BIRD exports, whatever keeps it from that', async (t) => {
    const good = { ...desired, device: 'bm-other' };
    const sight = async (of: BirdDesired = good) => {
      const observed = await plugin.observe(AbortSignal.timeout(5000));
      const lasting = observed.fault === undefined ? undefined : { ...observed.fault, forMs: 60_000 };
      return { code: observed.fault?.code, ...reportOf(of, { ...observed, fault: lasting }) };
    };
    const use = async (text: string): Promise<void> => {
      await writeFile(nodeConf, text);
      await tell(control, ['configure']);
    };
    await converge(plugin, good);
    await until(async () => (await sight()).exported, { what: 'both are exported' });
    t.match(await sight(), {
      code: undefined,
      alarms: [],
      seen: /^announced: exported to uplink \(uplink Estab/,
    });
    t.match(await sight({ ...good, holdTimeS: 9 }), { alarms: [] });
    t.match(await sight({ ...good, holdTimeS: 8 }), {
      exported: true,
      alarms: [{ code: 'bird-hold-time', message: /^the session uplink has a hold time of 9 s: / }],
    });

    const cases: [string, string, string, RegExp][] = [
      [
        'the wrong password',
        nodeText.replace('hold time 9;', 'hold time 9; password "wrong";'),
        'bird-session-down',
        /the provider has no route to 192\.0\.2\.7, 192\.0\.2\.8/,
      ],
      ['no session', nodeText.replace(/protocol bgp [^]*?\n}\n/, ''), 'bird-no-session', /no BGP session/],
      [
        'a table of its own',
        nodeText
          .replace('protocol device', 'ipv4 table own4;\nprotocol device')
          .replace('import none', 'table own4; import none'),
        'bird-route-not-exported',
        /uplink does not export/,
      ],
      [
        'a filter that lets one address through',
        nodeText.replace(', 192.0.2.8/32', ''),
        'bird-route-not-exported',
        /no neighbour has a route/,
      ],
      [
        'a filter that asks for another protocol',
        nodeText.replace('if net', 'if proto = "mine" && net'),
        'bird-route-not-exported',
        /uplink does not export/,
      ],
    ];
    for (const [what, text, code, message] of cases) {
      await use(text);
      await until(async () => (await sight()).code === code, { what: `${what}: seen`, deadlineMs: 30_000 });
      t.match(await sight(), { exported: false, alarms: [{ code, message }] }, what);
    }

    // A founder's own protocol has the same route: withdrawn here it is announced all the same, where the filter allows
    // it.
    const direct = `${nodeText}\nprotocol direct { ipv4; }\n`;
    await use(direct);
    await until(async () => (await sight()).exported, { what: 'announced by ours', deadlineMs: 30_000 });
    t.notMatch((await sight()).seen, /direct1/, 'ours is preferred');
    const off = { ...good, announce: false, why: 'maintenance' };
    await converge(plugin, off);
    await until(async () => (await sight(off)).code === 'bird-route-by-another', {
      what: 'announced by the other',
      deadlineMs: 20_000,
    });
    t.match(await sight(off), {
      seen: /^announced: exported to uplink by protocol direct1/,
      alarms: [{ message: /should be withdrawn \(maintenance\), but protocol direct1/, next: /if proto = / }],
    });
    await until(() => announced('192.0.2.7', '192.0.2.8'), { what: 'announced at the provider' });
    await use(direct.replace('if net', 'if proto = "bornemisza_floating" && net'));
    await until(() => announced(), { what: 'gone at the provider' });
    t.match(await sight(off), { code: undefined, exported: false, seen: /^not announced/ });
    await converge(plugin, good);
    await until(() => announced('192.0.2.7', '192.0.2.8'), { what: 'and back' });

    await use(nodeText.replace(/include .*/, ''));
    t.match(
      await sight(),
      { seen: /^not announced: exported to no session/ },
      'the fragment is not included',
    );
    await use(nodeText);
    await endChild(bird, 'SIGKILL');
    t.match(await sight(), { seen: 'not announced: BIRD is not running', exported: false });
    bird = startBird();
    await until(() => announced('192.0.2.7', '192.0.2.8'), { what: 'announced again' });
    t.equal(faultOf({ sessions: [] }, [], true), undefined, 'without an address nothing is wrong');
  });

  await t.test('IPv6 beside IPv4: announced, withdrawn and reported with it', async (t) => {
    // Zeros in two places, and in one only: BIRD and the kernel must write them as the configuration does.
    const six = ['2001:db8:0:1::8', '2001:db8::1:0:0:7'];
    const both = { ...desired, device: 'bm-other', addresses: [...desired.addresses, ...six] };
    const session = `protocol bgp uplink6 {
  local 2001:db8:9::1 as 64512; neighbor 2001:db8:9::2 as 64515;
  hold time 9; graceful restart off; connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv6 { import none; export filter floating; };
}
`;
    const with6 = nodeText
      .replace(
        'reject; }',
        `if net ~ [ ${six.map((each) => `${each}/128`).join(', ')} ] then accept; reject; }`,
      )
      .replace('include', `${session}include`);
    const use = async (text: string): Promise<void> => {
      await writeFile(nodeConf, text);
      await tell(control, ['configure']);
    };
    const upstream = async (): Promise<string[]> => {
      const text = await run('nsenter', ...provider, 'ip', '-6', 'route', 'show', 'proto', 'bird');
      return text
        .split('\n')
        .flatMap((line) => line.split(' ')[0] || [])
        .toSorted();
    };
    const all = async (): Promise<boolean> =>
      (await announced('192.0.2.7', '192.0.2.8')) && (await upstream()).join() === six.join();
    const report = async (of: BirdDesired = both) => {
      const observed = await plugin.observe(AbortSignal.timeout(5000));
      const lasting = observed.fault === undefined ? undefined : { ...observed.fault, forMs: 60_000 };
      return { code: observed.fault?.code, ...reportOf(of, { ...observed, fault: lasting }) };
    };
    await use(with6);
    t.same(summaries(await converge(plugin, both)), [
      '2001:db8:0:1::8/128: added to bm-other',
      '2001:db8::1:0:0:7/128: added to bm-other',
      'bornemisza.conf: rewritten',
      'BIRD reads its configuration: the fragment changed',
    ]);
    await until(all, { what: 'the provider has all four', deadlineMs: 30_000 });
    t.same(await converge(plugin, both), [], 'nothing is left to do, and the link-local address stays');
    await until(async () => (await report()).exported, { what: 'all are exported' });
    t.match(await report(), { alarms: [], seen: /^announced: exported to uplink, uplink6 \(/ });
    for (const address of six)
      t.match(await run('nsenter', ...provider, 'ping', '-6', '-c', '1', '-W', '3', address), '1 received');

    const times: number[] = [];
    for (let round = 0; round < 5; round += 1) {
      const begin = performance.now();
      t.same(summaries(await converge(plugin, { ...both, announce: false, why: 'maintenance' })), [
        'floating IPs: withdrawn (maintenance)',
        'bornemisza.conf: rewritten',
      ]);
      await until(async () => (await announced()) && (await upstream()).length === 0, {
        what: 'both families are gone upstream',
      });
      times.push(performance.now() - begin);
      await converge(plugin, both);
      await until(all, { what: 'both are back upstream' });
    }
    t.comment(`plan to gone upstream, both: ${times.map((ms) => ms.toFixed(0)).join(', ')} ms`);

    const told: string[] = [];
    const endWatch = plugin.watch((what) => told.push(what));
    await looking(join(fragments, 'bornemisza.conf'), told);
    await run('ip', 'addr', 'del', `${six[0]}/128`, 'dev', 'bm-other');
    await until(() => told.includes('an address of this host changed'), { what: 'it is noticed' });
    endWatch();
    t.same(summaries(await converge(plugin, both)), ['2001:db8:0:1::8/128: added to bm-other']);
    await run('ip', 'addr', 'add', '2001:db8::99/128', 'dev', 'bm-other');
    t.same(summaries(await converge(plugin, both)), ['2001:db8::99/128: removed from bm-other']);
    t.notMatch(await upstream(), ['2001:db8::99']);
    await until(all, { what: 'all four again' });

    const ranked: BirdDesired = { ...both, mode: 'ranked', rank: 1 };
    await converge(plugin, ranked);
    await until(
      async () => {
        const [lines = []] = await tell(join(root, 'provider.ctl'), [`show route ${six[0]}/128 all`]);
        return lines.some(({ text }) => text.endsWith('path: 64512 64512'));
      },
      { what: 'the longer path is there too' },
    );
    await converge(plugin, both);

    for (const [what, text, code, message, seen] of [
      [
        'a session that is down',
        with6.replace('uplink6 {', 'uplink6 { password "wrong";'),
        'bird-session-down',
        /the provider has no route to 2001:db8:0:1::8, 2001:db8::1:0:0:7 through this node$/,
        /^announced \(192\.0\.2\.7, 192\.0\.2\.8 only\): exported to uplink \(/,
      ],
      [
        'no session for IPv6',
        with6.replace(session, ''),
        'bird-route-not-exported',
        /^uplink does not export 2001:db8:0:1::8, 2001:db8::1:0:0:7: /,
        /^announced \(192\.0\.2\.7, 192\.0\.2\.8 only\): exported to uplink \(/,
      ],
      [
        'no session for IPv4',
        with6.replace(/protocol bgp uplink \{[^]*?\n}\n/, ''),
        'bird-route-not-exported',
        /^uplink6 does not export 192\.0\.2\.7, 192\.0\.2\.8: /,
        /^announced \(2001:db8:0:1::8, 2001:db8::1:0:0:7 only\): exported to uplink6 \(/,
      ],
    ] as const) {
      await use(text);
      await until(async () => (await report()).code === code, { what: `${what}: seen`, deadlineMs: 30_000 });
      t.match(await report(), { exported: false, alarms: [{ code, message }], seen }, what);
    }
    // RFC 4760: one session for both. The next hop must be named, as the neighbour's address is no IPv6 one.
    await use(
      with6
        .replace(session, '')
        .replace(
          /(ipv4 (\{ import none; export filter floating); };)/,
          '$1\n  ipv6 $2; next hop address 2001:db8:9::1; };',
        ),
    );
    await until(all, { what: 'one session has both', deadlineMs: 30_000 });
    await until(async () => (await report()).exported, { what: 'and reports both' });
    t.match(await report(), { alarms: [], seen: /^announced: exported to uplink \(/ });

    // A founder's own protocol has the same route.
    await use(`${with6}\nprotocol direct { ipv6; }\n`);
    const off = { ...both, announce: false, why: 'maintenance' };
    await converge(plugin, off);
    await until(async () => (await report(off)).code === 'bird-route-by-another', {
      what: 'announced by the other',
      deadlineMs: 30_000,
    });
    t.match(await report(off), { seen: /only\): exported to uplink6 by protocol direct/ });

    const alone = { ...both, addresses: six };
    await use(with6);
    await converge(plugin, alone);
    await until(async () => (await announced()) && (await upstream()).join() === six.join(), {
      what: 'IPv6 alone',
      deadlineMs: 30_000,
    });
    t.match(await report(alone), { seen: /^announced: exported to uplink6 \(/ });
    await use(nodeText);
    await converge(plugin, { ...desired, device: 'bm-other' });
    await until(() => announced('192.0.2.7', '192.0.2.8'), { what: 'IPv4 alone again' });
    t.same(await upstream(), []);
  });

  await t.test('another mode: nothing of it stays, at the provider, in BIRD, on this host', async (t) => {
    const retired = { retired: true, why: 'floating.mode is "off"' } as const;
    t.ok(await plugin.leftBehind());
    await writeFile(nodeConf, `${nodeText}\nnonsense here;\n`);
    t.match(await failure(converge(plugin, retired)), { code: 'bird-config-refused' });
    t.ok(await plugin.leftBehind(), 'as long as BIRD has it, it is tried again');
    await until(() => announced(), { what: 'it is withdrawn all the same' });
    await writeFile(nodeConf, nodeText);
    t.match(summaries(await converge(plugin, retired)).at(-1), /removed/);
    t.notOk(await plugin.leftBehind());
    t.notMatch(await run('ip', '-br', 'link'), /bm-other/);
    const [protocols = []] = await tell(control, ['show protocols']);
    t.notMatch(protocols.map(({ text }) => text).join('\n'), /bornemisza_floating/);
    t.same(await converge(plugin, retired), []);
  });
}
