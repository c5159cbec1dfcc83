import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { HostFinding } from '../../../src/daemon/health/host-finding.ts';
import { Machine } from '../../../src/daemon/health/machine.ts';

/** A machine by its files below /sys. */
async function machine(t: Test, devices: { private: string; public: string | undefined }) {
  const sys = t.testdir({});
  const told: string[] = [];
  const clock = { ms: 0 };
  const made = new Machine(
    { devices, sys },
    {
      nowMs: () => clock.ms,
      changed: ({ message, over }: HostFinding, began) => told.push(began ? message : over),
    },
  );
  const put = async (path: string, text: string): Promise<void> => {
    await mkdir(join(sys, path, '..'), { recursive: true });
    await writeFile(join(sys, path), text);
  };
  await put('class/net/lo/carrier', '1\n');
  const codesAfter = async (ms: number): Promise<string[]> => {
    clock.ms += ms;
    await made.look();
    return made.findings.map(({ code }) => code);
  };
  return { made, told, put, codesAfter, sys };
}

t.test('a device without link is reported after some seconds, and again when it is back', async (t) => {
  const { made, told, put, codesAfter, sys } = await machine(t, { private: 'eth1', public: 'eth0' });
  const carrier = (device: string, word: string) => put(`class/net/${device}/carrier`, `${word}\n`);
  await carrier('eth1', '1');
  await carrier('eth0', '1');
  t.same(await codesAfter(60_000), []);
  await carrier('eth0', '0');
  t.same(await codesAfter(2000), [], 'it may be renegotiated');
  await carrier('eth0', '1');
  t.same(await codesAfter(2000), []);
  await carrier('eth0', '0');
  t.same(await codesAfter(2000), []);
  t.same(await codesAfter(4000), ['link-down']);
  t.equal(made.tag, 'public-link');
  t.match(made.findings, [{ next: /ip link show eth0/ }]);
  await rm(join(sys, 'class/net/eth1'), { recursive: true });
  await codesAfter(4000);
  t.same(await codesAfter(4000), ['link-down', 'link-down']);
  t.equal(made.tag, 'private-link public-link');
  await carrier('eth0', '1');
  await carrier('eth1', '1');
  t.same(await codesAfter(2000), []);
  t.equal(made.tag, undefined);
  t.same(told, [
    'the public device eth0 has no link: no visitor reaches this node',
    'the private device eth1 does not exist: no other node reaches this one',
    'the private device has its link again',
    'the public device has its link again',
  ]);
});

t.test('a device that cannot be seen is not reported', async (t) => {
  const { codesAfter, sys } = await machine(t, { private: 'eth1', public: undefined });
  await rm(join(sys, 'class/net/lo'), { recursive: true });
  for (let count = 0; count < 3; count += 1) t.same(await codesAfter(5000), []);
});

t.test('memory is reported while all work waits for it, and not at each wave', async (t) => {
  const { made, told, put, codesAfter } = await machine(t, { private: 'lo', public: undefined });
  t.same(await codesAfter(5000), [], 'a kernel that does not measure it');
  for (const [full, codes] of [
    ['9.90', []],
    ['12.30', ['memory-pressure']],
    ['6.00', ['memory-pressure']],
    ['4.99', []],
    ['9.00', []],
  ] as const) {
    const some = 'some avg10=80.00 avg60=70.00 avg300=9.00 total=1';
    await put('fs/cgroup/memory.pressure', `${some}\nfull avg10=50.00 avg60=${full} avg300=1.00 total=2\n`);
    t.same(await codesAfter(5000), codes, full);
    t.equal(made.tag, codes.length > 0 ? 'memory' : undefined);
  }
  t.same(told, [
    'all work on this machine waited for memory in 12 % of the last minute',
    'there is enough memory again',
  ]);
});

t.test('this machine’s own files are read', async (t) => {
  const made = new Machine(
    { devices: { private: 'lo', public: 'lo' } },
    { nowMs: () => 0, changed: () => undefined },
  );
  await made.look();
  t.same(
    made.findings.filter(({ code }) => code === 'link-down'),
    [],
  );
});
