import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Test } from 'tap';
import { initCluster } from '../../../src/daemon/identity/root/init-cluster.ts';
import { type Identity, loadIdentity } from '../../../src/daemon/identity/identity.ts';
import { joinCluster } from '../../../src/daemon/identity/admission/join.ts';
import { AdmissionListener } from '../../../src/daemon/identity/admission/listener.ts';
import { loopback } from '../transport/nodes.ts';
import { NOW_MS } from './cluster.ts';

export const HOUR_MS = 3_600_000;
export const PASSPHRASE = 'a passphrase for tests';
const PORT = 4102;

/**
 * State directories of an authority (`first`) and of a member that it admitted by a real token over a real connection.
 */
export async function pairOf(t: Pick<Test, 'testdir'>) {
  const home = t.testdir({ first: {}, second: {} });
  const address = loopback();
  for (const name of ['first', 'second']) await rm(join(home, name), { recursive: true });
  const founding = { cluster: 'prod', host: 'app1', role: 'app', address, nowMs: NOW_MS } as const;
  const stateDir = join(home, 'first');
  const { recoveryBundle } = await initCluster({ ...founding, stateDir, passphrase: PASSPHRASE });

  /** Joins `host` at the authority, whose clock says `issuerMs`, from a machine whose clock says `joinerMs`. */
  async function joinAt(
    joinerDir: string,
    host: string,
    issuerMs: () => number,
    joinerMs: number,
  ): Promise<Identity> {
    const first = await loadIdentity(stateDir, issuerMs());
    if (first.tokens === undefined) throw new Error('an authority');
    const listener = new AdmissionListener({
      ...{ identity: first, address, port: PORT, privateNetwork: '127.0.0.0/8', nowMs: issuerMs },
      // A handshake and a signature on however busy a machine.
      conversationMs: 60_000,
      standing: () => 'alive',
      seeds: () => [],
      onAdmitted: () => undefined,
      onNote: () => undefined,
    });
    const request = { role: 'app', ttlMs: HOUR_MS / 2, address, port: PORT } as const;
    try {
      const { token } = await first.tokens.create({ ...request, nowMs: issuerMs() });
      await listener.refresh();
      const joiner = {
        host,
        address: loopback(),
        version: '0.1.0',
        nowMs: () => joinerMs,
        timeoutMs: 60_000,
      };
      await joinCluster({ ...joiner, token, stateDir: joinerDir });
      return await loadIdentity(joinerDir, joinerMs);
    } finally {
      await listener.close();
    }
  }
  await joinAt(join(home, 'second'), 'app2', () => NOW_MS, NOW_MS);
  return { home, joinAt, recoveryBundle };
}
