import { X509Certificate } from 'node:crypto';
import type { Roster as DriverRoster } from '../../driver/driver.ts';
import { certificatesIn } from '../keys/chain.ts';
import type { Identity } from '../identity.ts';
import { encodeRevocation } from './revocation.ts';
import type { RosterChange } from './roster.ts';

/** What this node presents to peers that do not know it yet: its chain without the root. */
export function presentedChain(identity: Identity): Uint8Array {
  return packChain(certificatesIn(identity.chainPem).map((certificate) => certificate.raw));
}

/**
 * DER certificates, each after its length in 2 bytes: a chain of RSA-3072 takes 2.7 kB; as PEM it would take 3.7 kB.
 */
function packChain(certificates: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat(
    certificates.flatMap((der) => {
      const length = Buffer.alloc(2);
      length.writeUInt16BE(der.length);
      return [length, der];
    }),
  );
}

/** @returns PEM, or undefined for anything but whole certificates to the last byte */
function unpackChain(bytes: Uint8Array): string | undefined {
  const buffer = Buffer.from(bytes);
  const pems: string[] = [];
  for (let at = 0; at < buffer.length; ) {
    if (at + 2 > buffer.length) return undefined;
    const end = at + 2 + buffer.readUInt16BE(at);
    if (end > buffer.length) return undefined;
    try {
      pems.push(new X509Certificate(buffer.subarray(at + 2, end)).toString());
    } catch {
      return undefined;
    }
    at = end;
  }
  return pems.length === 0 ? undefined : pems.join('');
}

/** The identity's roster in the driver's terms. `changed` is notified of every change, whatever its source. */
export function driverRoster(identity: Identity, changed: (change: RosterChange) => void): DriverRoster {
  const { roster } = identity;
  return {
    members: () => roster.members(),
    find: (peer) => (roster.admits(peer) ? roster.get(peer) : undefined),
    admit: async (peer, chain) => {
      const pem = unpackChain(chain);
      if (pem === undefined) return undefined;
      try {
        changed(roster.present(pem, peer));
      } catch {
        // A peer whose certificate does not verify is a stranger; the transport notes that and disconnects.
        return undefined;
      }
      return roster.admits(peer) ? roster.get(peer) : undefined;
    },
    revocationOf: (peer) => {
      const revocation = roster.revocations().find((each) => each.peerId === peer);
      return revocation === undefined ? undefined : encodeRevocation(revocation);
    },
    refusedWith: (bytes) => {
      try {
        changed(roster.addOwnRevocation(bytes, identity.peerId));
      } catch {
        // A revocation that does not verify changes nothing: the dial has failed and is tried again.
      }
    },
    digest: () => Buffer.from(roster.digest(), 'hex'),
    export: () => roster.exportAll(),
    import: async (bytes) => {
      const change = await roster.merge(bytes);
      changed(change);
      return { admitted: change.admitted, revoked: change.revoked, refused: change.refused.length };
    },
  };
}
