import t from 'tap';
import type { Check } from '../../src/cli/doctor/check.ts';
import { ip, namespaceOf } from '../lab/namespace.ts';
import { type ClaimedPlace, claimPlace } from '../lab/place.ts';
import { must } from '../lab/process.ts';

/** Two machines on one network, and doctor's look from the first, with the real ping. */
const ADDRESSES = ['10.77.0.1', '10.77.0.2'];
let place: ClaimedPlace;

t.before(async () => {
  place = await claimPlace();
  const names = ['app1', 'app2'].map((name) => namespaceOf(place, name));
  const middle = namespaceOf(place, 'switch');
  await ip(
    undefined,
    [middle, ...names].map((name) => `netns add ${name}`),
  );
  await ip(middle, ['link add sw0 type bridge', 'link set sw0 up']);
  for (const [index, name] of names.entries()) {
    await ip(middle, [
      `link add port${index} type veth peer name eth1 netns ${name}`,
      `link set port${index} master sw0 up`,
    ]);
    await ip(name, [`addr add ${ADDRESSES[index]}/24 dev eth1`, 'link set eth1 up']);
  }
});
t.teardown(() => place?.close());

async function look(): Promise<Check[]> {
  const source = (path: string): string => new URL(`../../src/cli/${path}`, import.meta.url).href;
  const members = ADDRESSES.map((address, index) => ({
    self: index === 0,
    address,
    name: `app${index + 1}/app`,
    state: 'alive',
  }));
  const code = `import { fullPackets } from '${source('doctor/path.ts')}';
    import { areaOf } from '${source('doctor/check.ts')}';
    import { thisHost } from '${source('process-io.ts')}';
    console.log(JSON.stringify(await fullPackets(thisHost(), ${JSON.stringify(members)}, areaOf('app'))));`;
  // With a /sys of its own, in which its devices are.
  const inside = ['ip', 'netns', 'exec', namespaceOf(place, 'app1')];
  const argv = [...inside, process.execPath, '--input-type=module', '-e', code];
  return JSON.parse(await must(argv)) as Check[];
}

t.test(
  'full packets arrive; where the network drops them doctor names the size that it carries',
  async (t) => {
    t.match(await look(), [{ state: 'ok', detail: 'eth1 sends 1500 bytes, and they arrive' }]);
    await ip(namespaceOf(place, 'switch'), ['link set port1 mtu 1450']);
    t.match(await look(), [
      {
        state: 'warn',
        detail: /packets above 1450 bytes do not arrive at app2\/app/,
        next: /ip link set dev eth1 mtu 1450/,
      },
    ]);
  },
);
