import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import t from 'tap';
import { trustOf } from '../../../src/daemon/identity/keys/chain.ts';
import { Roster } from '../../../src/daemon/identity/roster/roster.ts';
import { NOW_MS } from './cluster.ts';

/**
 * Rosters of version 1, kept for good: what lies on a disk that was switched off for a year must be read by whatever
 * the others run then. A later version may write otherwise, and then adds a file of its own.
 */
const text = await readFile(new URL('../../vectors/roster-1.txt', import.meta.url), 'utf8');
const kept = new Map(
  text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(' ') as [string, string])
    .map(([name, hex]) => [name, Buffer.from(hex, 'hex')]),
);
const bytesOf = (name: string): Buffer => kept.get(name) ?? Buffer.alloc(0);
const pemOf = (name: string): string => new X509Certificate(bytesOf(name)).toString();

async function read(name: string, ...roots: readonly string[]) {
  const trust = trustOf('prod', roots.map(pemOf).join(''));
  const roster = new Roster(trust, '/nowhere');
  const { refused } = await roster.merge(bytesOf(name));
  const believed = trust.roots.map(({ pem }) => (pem === pemOf('root-1') ? 'root-1' : 'root-2'));
  return { roster, refused, believed };
}

t.test('every kept roster is read as it was meant', async (t) => {
  const cases: [string, string[], string[]][] = [
    ['roster', ['root-1'], ['root-1']],
    ['roster-both-roots', ['root-1'], ['root-1', 'root-2']],
    ['roster-both-roots', ['root-1', 'root-2'], ['root-1', 'root-2']],
    ['roster-root-2', ['root-1'], ['root-2']],
    ['roster-root-2', ['root-2'], ['root-2']],
  ];
  for (const [name, held, expected] of cases) {
    const { roster, refused, believed } = await read(name, ...held);
    t.strictSame([refused, believed], [[], expected], name);
    t.strictSame(
      roster.members().map((member) => member.name),
      ['db1/db', 'app1/app'],
      name,
    );
    t.match(roster.revocations(), [{ name: 'app9/app', reason: 'sold', revokedAtMs: NOW_MS }]);
    t.equal(roster.authorities().length, 1);
    t.equal(roster.rootChange?.sequence, name === 'roster-both-roots' ? 1 : undefined);
  }
});

t.test('this version writes exactly the kept bytes', async (t) => {
  for (const name of ['roster', 'roster-both-roots', 'roster-root-2']) {
    const { roster } = await read(name, 'root-1');
    t.equal(Buffer.from(roster.exportAll()).toString(), bytesOf(name).toString(), name);
  }
});
