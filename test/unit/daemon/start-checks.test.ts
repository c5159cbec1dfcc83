import t from 'tap';
import { parseConfig } from '../../../src/daemon/config/config.ts';
import type { Identity } from '../../../src/daemon/identity/identity.ts';
import {
  listenRefused,
  mustBeOfThisNode,
  mustBeReloadable,
} from '../../../src/daemon/process/start-checks.ts';
import { TransportError } from '../../../src/daemon/transport/errors.ts';

const NODE = '[node]\ncluster = "shop"\nhost = "app1"\n';
const NETWORK =
  '[network]\nprivate_address = "127.0.0.1"\nprivate_network = "127.0.0.0/8"\nprivate_device = "lo"\n';
const parse = (text: string) => parseConfig(text, 'app', 'app.toml');
const least = parse(NODE + NETWORK);

t.test('a node starts only where it was admitted for', async (t) => {
  const admitted = { name: 'app1/app', host: 'app1', cluster: 'shop', address: '127.0.0.1' };
  const start =
    (identity: object, config = least) =>
    () =>
      mustBeOfThisNode(config, { ...admitted, ...identity } as unknown as Identity, '/etc/app.toml');
  t.doesNotThrow(start({}));
  for (const [differs, message] of [
    [{ host: 'app2' }, '/etc/app.toml says host app1, but app1/app was admitted with app2'],
    [{ cluster: 'other' }, '/etc/app.toml says cluster shop, but app1/app was admitted with other'],
    [
      { address: '10.0.0.9' },
      '/etc/app.toml says private_address 127.0.0.1, but app1/app was admitted with 10.0.0.9',
    ],
  ] as const)
    t.throws(start(differs), { code: 'config-identity-differs', message });
  // TEST-NET-1 is on no machine.
  const elsewhere = parse(
    NODE + NETWORK.replaceAll('127.0.0.0/8', '192.0.2.0/24').replace('127.0.0.1', '192.0.2.1'),
  );
  t.throws(start({ address: '192.0.2.1' }, elsewhere), { code: 'address-not-here' });
});

t.test('a reload takes what a running daemon can take over, and names what it cannot', async (t) => {
  const reload = (text: string) => () => mustBeReloadable(least, parse(text));
  t.doesNotThrow(reload(NODE + NETWORK));
  t.doesNotThrow(
    reload(
      `${NODE}${NETWORK}[health]\nrise = 3\n[edge]\nhttps_port = 8444\n[notify]\ncommand = ["/bin/true"]\n`,
    ),
  );
  for (const [text, what] of [
    [NODE.replace('app1', 'app2') + NETWORK, '[node]'],
    [NODE + NETWORK.replace('127.0.0.1', '127.0.0.2'), '[network]'],
    [`${NODE}${NETWORK}[log]\nlevel = "debug"\n`, '[log]'],
    [`${NODE}${NETWORK}[membership]\npreset = "wan"\n`, '[membership]'],
    [`${NODE}${NETWORK}[floating]\nmode = "bgp"\naddresses = ["203.0.113.10"]\n`, '[floating] mode'],
  ] as const)
    t.throws(reload(text), {
      code: 'reload-needs-restart',
      message: `${what} changed, which is read only at the start`,
    });
  const [bgp, ranked] = ['bgp', 'ranked'].map((mode) =>
    parse(`${NODE}${NETWORK}[floating]\nmode = "${mode}"\naddresses = ["203.0.113.10"]\n`),
  );
  t.doesNotThrow(() => mustBeReloadable(bgp ?? least, ranked ?? least), 'BIRD announces in both');
});

t.test(
  'a port that is taken says how to find who has it; what is no refusal of the transport stays as it is',
  async (t) => {
    t.match(listenRefused(new TransportError('address-in-use', 'taken')), {
      code: 'address-in-use',
      message: 'taken',
      next: /ss -ltnp/,
    });
    const bug = new TypeError('a bug');
    t.equal(listenRefused(bug), bug);
  },
);
