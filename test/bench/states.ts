import { createPrivateKey } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createTlsKey, keyPem } from '../../src/daemon/identity/keys/certificates.ts';
import { initCluster, writeKeys } from '../../src/daemon/identity/root/init-cluster.ts';
import { loadIdentity } from '../../src/daemon/identity/identity.ts';
import { createNodeKey } from '../../src/daemon/identity/keys/node-key.ts';
import { Roster } from '../../src/daemon/identity/roster/roster.ts';
import { createSigningRequest } from '../../src/daemon/identity/keys/signing-request.ts';
import { FILES, finishState, writeStateFile } from '../../src/daemon/identity/state.ts';

const CLUSTER = 'bench';
const ROLE = 'app';

export const hostNameOf = (host: number): string => `h${host}`;
export const stateOf = (directory: string, host: number): string => join(directory, String(host));

/**
 * State directories of a whole cluster as `init` and `join` leave them, with every member in every roster. The members
 * share one TLS key: membership does not use it, and each takes a second to make.
 */
export async function makeStates(directory: string, addresses: readonly string[]): Promise<void> {
  const [first = '', ...others] = addresses;
  const nowMs = Date.now();
  const founderState = stateOf(directory, 0);
  const names = { cluster: CLUSTER, role: ROLE } as const;
  await initCluster({ stateDir: founderState, ...names, host: hostNameOf(0), address: first, nowMs });
  const founder = await loadIdentity(founderState, nowMs);
  const { authority, trust } = founder;
  if (authority === undefined) throw new Error('the founder signs');
  const tlsKey = createPrivateKey(keyPem(await createTlsKey()));
  const members = [founder.certificate];
  for (const [index, address] of others.entries()) {
    const host = index + 1;
    const hostName = hostNameOf(host);
    const stateDir = stateOf(directory, host);
    await mkdir(stateDir, { mode: 0o700 });
    const nodeKey = createNodeKey();
    const { peerId } = nodeKey;
    const csrPem = createSigningRequest(tlsKey, hostName, ROLE);
    const certificate = await authority.issue(
      { host: hostName, role: ROLE, address, peerId, admittedAtMs: nowMs + host, csrPem },
      nowMs,
    );
    members.push(certificate);
    await writeKeys(stateDir, nodeKey.pem, keyPem(tlsKey));
    await writeStateFile(join(stateDir, FILES.chain), certificate.chainPem);
    await writeStateFile(join(stateDir, FILES.roots), founder.rootsPem);
    const ends = { founder: false, firstOfRole: false, seeds: [] };
    await finishState(stateDir, { version: 1, ...names, host: hostName, address, peerId, ...ends });
  }
  for (let host = 0; host < addresses.length; host += 1) {
    const roster = new Roster(trust, join(stateOf(directory, host), FILES.roster));
    for (const member of members) roster.add(member);
    await roster.save();
  }
}
