import t from 'tap';
import { addressesOf, choosePrivate, choosePublic, nameNode } from '../../../src/cli/setup/discover.ts';
import { fakeHost } from './captured-io.ts';

const addresses = (devices: Readonly<Record<string, readonly string[]>>) =>
  addressesOf(fakeHost({ devices }).interfaces());

t.test('the only private address is found with its device and network', async (t) => {
  const found = choosePrivate(addresses({ eth0: ['203.0.113.7'], eth1: ['10.1.2.11'] }), {});
  t.same(found, { device: 'eth1', address: '10.1.2.11', network: '10.1.2.0/24', kind: 'private' });
});

t.test('RFC 1918 networks are recognised, their neighbours not', async (t) => {
  const table: readonly (readonly [string, string])[] = [
    ['10.255.255.254', 'private'],
    ['11.0.0.1', 'public'],
    ['172.15.0.1', 'public'],
    ['172.16.0.1', 'private'],
    ['172.31.9.9', 'private'],
    ['172.32.0.1', 'public'],
    ['192.168.1.1', 'private'],
    ['192.169.1.1', 'public'],
    ['169.254.1.1', 'other'],
    ['100.64.0.1', 'other'],
    ['100.128.0.1', 'public'],
  ];
  for (const [address, kind] of table) t.equal(addresses({ x: [address] })[1]?.kind, kind, address);
});

t.test('several private addresses are refused with the candidates, unless one is given', async (t) => {
  const two = addresses({ eth1: ['10.0.0.11'], docker0: ['172.17.0.1'] });
  t.throws(() => choosePrivate(two, {}), {
    code: 'private-address-ambiguous',
    message: /10\.0\.0\.11 on eth1, 172\.17\.0\.1 on docker0/,
  });
  t.equal(choosePrivate(two, { device: 'docker0' }).address, '172.17.0.1');
  t.equal(choosePrivate(two, { address: '10.0.0.11' }).device, 'eth1');
  t.throws(() => choosePrivate(two, { address: '10.0.0.11', device: 'docker0' }), {
    code: 'address-not-here',
  });
});

t.test(
  'a private network that is down, and an address of another machine, are reported with the found ones',
  async (t) => {
    const down = addresses({ eth0: ['203.0.113.7'] });
    t.throws(() => choosePrivate(down, {}), {
      code: 'private-address-absent',
      message: /203\.0\.113\.7 on eth0/,
      next: /ip addr/,
    });
    t.throws(() => choosePrivate(down, { device: 'eth1' }), { message: /device eth1 has no IPv4 address/ });
    t.throws(() => choosePrivate(down, { address: '10.0.0.99' }), {
      code: 'address-not-here',
      message: /10\.0\.0\.99 is not on this host/,
    });
    t.throws(() => choosePrivate(down, { address: '10.0.0' }), { code: 'address-invalid' });
  },
);

t.test('any address of 127.0.0.0/8 can be asked for', async (t) => {
  t.match(choosePrivate(addresses({}), { address: '127.0.1.3' }), {
    device: 'lo',
    address: '127.0.1.3',
    network: '127.0.0.0/8',
  });
});

t.test('the public device is the only one, or the default route’s, or the given one', async (t) => {
  const one = addresses({ eth0: ['203.0.113.7'], eth1: ['10.0.0.11'] });
  t.equal(choosePublic(one, { privateDevice: 'eth1' }), 'eth0');
  const two = addresses({ eth0: ['203.0.113.7'], eth2: ['198.51.100.2'], eth1: ['10.0.0.11'] });
  t.equal(choosePublic(two, { privateDevice: 'eth1', defaultRoutes: ['eth2'] }), 'eth2');
  t.equal(choosePublic(two, { privateDevice: 'eth1', wish: 'eth0' }), 'eth0');
  t.throws(() => choosePublic(two, { privateDevice: 'eth1' }), {
    code: 'public-device-ambiguous',
    message: /eth0.*eth2/,
  });
  t.throws(() => choosePublic(two, { privateDevice: 'eth1', wish: 'eth9' }), { code: 'device-not-here' });
  t.equal(
    choosePublic(addresses({ eth1: ['10.0.0.11'] }), { privateDevice: 'eth1', defaultRoutes: ['eth1'] }),
    undefined,
  );
});

t.test('host and cluster come from the host name', async (t) => {
  t.same(nameNode('App1.Shop.Example', {}), { host: 'app1', cluster: 'shop-example' });
  t.same(nameNode('app1', { cluster: 'shop' }), { host: 'app1', cluster: 'shop' });
  t.same(nameNode('localhost', { host: 'db1', cluster: 'shop' }), { host: 'db1', cluster: 'shop' });
});

t.test('a host name that cannot be one is refused before it reaches a file', async (t) => {
  for (const name of [
    'app_1.shop',
    'a b.shop',
    'a"b.shop',
    'a\nb.shop',
    '-a.shop',
    `${'a'.repeat(64)}.shop`,
    '.shop',
    '',
  ]) {
    t.throws(() => nameNode(name, {}), { code: 'host-invalid' }, JSON.stringify(name));
  }
  t.throws(() => nameNode('app1', {}), { code: 'cluster-unknown', next: /--cluster/ });
  t.throws(() => nameNode('app1.localdomain', {}), { code: 'cluster-unknown' });
  for (const cluster of ['a b', 'A', 'a.b', 'x'.repeat(33)])
    t.throws(() => nameNode('app1', { cluster }), { code: 'cluster-invalid' }, cluster);
});
