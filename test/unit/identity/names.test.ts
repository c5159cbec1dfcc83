import t from 'tap';
import {
  inNetwork,
  parseAddress,
  parseCluster,
  parseHost,
  parsePort,
  parseRole,
} from '../../../src/daemon/identity/names.ts';
import { IdentityError } from '../../../src/daemon/identity/errors.ts';
import { codeOf } from './cluster.ts';

t.test('a host is one harmless label', async (t) => {
  for (const good of ['db1', 'a', '1', 'x-y', 'a'.repeat(63)]) t.equal(parseHost(good), good);
  const hostile = [
    '',
    '-a',
    'a-',
    'DB1',
    'db1.example',
    'a b',
    'a"b',
    "a'b",
    'a\nb',
    'db1\n',
    'a;b',
    '$(id)',
    '../x',
    'ä',
    'a'.repeat(64),
  ];
  for (const bad of hostile) t.equal(await codeOf(() => parseHost(bad)), 'host-invalid', JSON.stringify(bad));
});

t.test('a cluster is a shorter one', async (t) => {
  t.equal(parseCluster('prod'), 'prod');
  for (const bad of ['', 'Prod', 'a/b', 'a\n', 'a'.repeat(33)])
    t.equal(await codeOf(() => parseCluster(bad)), 'cluster-invalid');
});

t.test('a role is app or db', async (t) => {
  t.equal(parseRole('app'), 'app');
  t.equal(await codeOf(() => parseRole('root')), 'role-invalid');
});

t.test('an address is one that a host can hold, in its usual spelling', async (t) => {
  for (const good of ['10.0.0.1', '127.0.0.2', '192.168.255.254']) t.equal(parseAddress(good), good);
  const bad = [
    '',
    '10.0.0',
    '10.0.0.256',
    '010.0.0.1',
    '0.0.0.0',
    '224.0.0.1',
    '255.255.255.255',
    '::1',
    '10.0.0.1\n',
    '1'.repeat(99),
  ];
  for (const text of bad) t.equal(await codeOf(() => parseAddress(text)), 'address-invalid', text);
});

t.test('a port is a port', async (t) => {
  t.equal(parsePort(4102), 4102);
  for (const bad of [0, -1, 65_536, 1.5, Number.NaN])
    t.equal(await codeOf(() => parsePort(bad)), 'port-invalid');
});

t.test('a network holds the addresses under its mask', async (t) => {
  t.ok(inNetwork('10.0.3.4', '10.0.0.0/16'));
  t.notOk(inNetwork('10.1.3.4', '10.0.0.0/16'));
  t.ok(inNetwork('192.168.1.1', '0.0.0.0/0'));
  t.ok(inNetwork('10.0.0.5', '10.0.0.5/32'));
  t.notOk(inNetwork('10.0.0.6', '10.0.0.5/32'));
  t.ok(inNetwork('200.0.0.1', '128.0.0.0/1'), 'the highest bit is no sign');
  for (const bad of ['', '10.0.0.0', '10.0.0.0/33', 'x/8', '10.0.0.0/-1'])
    t.notOk(inNetwork('10.0.0.1', bad), bad);
});

t.test('a hostile name is shown on one line, quoted and cut', async (t) => {
  try {
    parseHost(`x"\n${'y'.repeat(500)}`);
    t.fail('it was taken');
  } catch (error) {
    t.ok(error instanceof IdentityError);
    t.notMatch(String(error), '\n');
    t.ok(String(error).length < 300);
  }
});
