import { IdentityError } from '../errors.ts';
import { newestRoot, type RootCertificate, type Trust, trustOf } from '../keys/chain.ts';
import type { Roster } from '../roster/roster.ts';
import { openRoot, type Root } from './recovery.ts';
import { rootWord } from './succession.ts';

export interface Recovery {
  readonly bundle: string;
  readonly passphrase: string;
}

/** The source of this cluster's roots. */
interface RootHolder {
  readonly cluster: string;
  readonly trust: Trust;
  readonly roster: Roster;
}

/** The root that a bundle must have to sign for the present cluster. @throws IdentityError `recovery-*` */
export function openNewestRoot(identity: RootHolder, recovery: Recovery): Promise<Root> {
  return openOneOf(identity, newestRoot(identity.trust), recovery);
}

export async function openOneOf(
  { cluster, trust, roster }: RootHolder,
  wanted: RootCertificate,
  { bundle, passphrase }: Recovery,
): Promise<Root> {
  const root = await openRoot(bundle, passphrase);
  const { fingerprint } = certificateOf(root);
  if (fingerprint === wanted.fingerprint) return root;
  const known = [...trust.roots, ...roster.successions().flatMap(({ from, to }) => [from, to])];
  const other = known.find((each) => each.fingerprint === fingerprint);
  if (other === undefined) {
    throw new IdentityError({
      code: 'recovery-other-cluster',
      message: `The recovery bundle is not of this cluster's root (${cluster}).`,
      next:
        'Use the bundle that "bornemisza init" wrote for this cluster, or that of the last replacement of ' +
        'its root.',
    });
  }
  throw new IdentityError({
    code: 'recovery-outdated',
    message: `The recovery bundle is of the root ${rootWord(other)}, but that of ${rootWord(wanted)} is needed.`,
    next: `Use the bundle whose first line has a root that begins with ${rootWord(wanted)}.`,
  });
}

export function certificateOf({ cluster, certificatePem }: Root): RootCertificate {
  return newestRoot(trustOf(cluster, certificatePem));
}
