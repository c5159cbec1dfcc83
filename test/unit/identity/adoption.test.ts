import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import {
  adoptAuthority,
  adoptCertificate,
  becomeAuthority,
  loadIdentity,
  removeMember,
} from '../../../src/daemon/identity/identity.ts';
import { codeOf, NOW_MS } from './cluster.ts';
import { PASSPHRASE, pairOf } from './pair.ts';

const { home, recoveryBundle } = await pairOf(t);
const recovery = { bundle: recoveryBundle, passphrase: PASSPHRASE };

t.test(
  'a member becomes an authority while its daemon runs, and takes over from one that is removed',
  async (t) => {
    const own = await loadIdentity(join(home, 'second'), NOW_MS);
    const { peerId: first } = (await loadIdentity(join(home, 'first'), NOW_MS)).certificate;
    t.equal(own.certificate.issuer, first);
    t.equal(await codeOf(() => adoptAuthority(own)), 'authority-missing');
    await becomeAuthority(own, recovery, NOW_MS);
    t.equal(own.authority, undefined, 'the files are there, the daemon has not looked');
    t.ok((await adoptAuthority(own))?.changed);
    t.equal(await adoptAuthority(own), undefined, 'once is enough');
    t.strictSame(own.roster.authorities(), [first, own.peerId].sort());
    t.ok(own.tokens);

    t.equal(await adoptCertificate(own), false, 'its certificate is the one that the roster holds');
    const before = own.certificate;
    const { change } = await removeMember(own, 'app1', 'lost', NOW_MS + 1000);
    t.strictSame(
      change.renewed.map(({ peerId }) => peerId),
      [own.peerId],
    );
    t.equal(own.certificate.serialHex, before.serialHex, 'in use until it is taken');

    // The daemon was ended before it took the new one: its next start does.
    const again = await loadIdentity(own.stateDir, NOW_MS + 2000);
    t.strictSame(again.warnings, []);
    t.match(again.certificate, { issuer: own.peerId, name: before.name, admittedAtMs: before.admittedAtMs });
    t.equal(await readFile(again.chainPath, 'utf8'), again.chainPem);
    t.equal(await adoptCertificate(own), true, 'and so does the one that runs on');
    t.equal(own.certificate.serialHex, again.certificate.serialHex);
  },
);

t.test('the removed one cannot become an authority again by the bundle', async (t) => {
  const removed = await loadIdentity(join(home, 'first'), NOW_MS);
  const { roster } = await loadIdentity(join(home, 'second'), NOW_MS);
  await removed.roster.merge(roster.exportAll());
  await removed.roster.save();
  const knowing = await loadIdentity(join(home, 'first'), NOW_MS);
  t.match(knowing.warnings, [{ code: 'self-revoked' }]);
  t.equal(
    await codeOf(() => becomeAuthority({ ...knowing, authority: undefined }, recovery, NOW_MS)),
    'self-revoked',
  );
});
