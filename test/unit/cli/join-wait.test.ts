import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { createToken, formatToken } from '../../../src/daemon/identity/admission/tokens.ts';
import { peerIdOf } from '../../../src/daemon/identity/keys/node-key.ts';
import type { Host } from '../../../src/cli/io.ts';
import { fakeHost, runCli } from './captured-io.ts';
import { place } from './place.ts';

const token = (ttlMs: number): string =>
  formatToken(
    createToken({
      cluster: 'shop',
      // Port 9 (discard) of this host: nobody listens.
      issuer: { address: '127.0.0.1', port: 9, peerId: peerIdOf(new Uint8Array(32).fill(7)) },
      rootFingerprint: 'ab'.repeat(32),
      role: 'app',
      expiresAtMs: Date.now() + ttlMs,
    }),
  );

/**
 * A machine whose private device comes with the third look. 127.0.0.1 can be connected from, so it plays the private
 * one.
 */
function lateHost(): Host & { looks(): number } {
  let looks = 0;
  const early = fakeHost({ devices: { eth0: ['203.0.113.7'] } });
  const late = fakeHost({ devices: { eth0: ['203.0.113.7'], eth1: ['10.0.0.11'] } });
  return { ...early, interfaces: () => ((looks += 1) > 2 ? late : early).interfaces(), looks: () => looks };
}

t.test('join waits for a private address that comes late, and then for the issuer', async (t) => {
  const root = await place(t);
  const host = lateHost();
  const { code, err } = await runCli(['join', '-', '--wait', '6s', '--root', root], {
    host,
    stdin: token(60_000),
  });
  t.equal(code, 1);
  t.match(err, /^waiting: this host has no private address[^\n]*\n(?!waiting: this host)/, 'said once');
  t.equal(host.looks(), 3);
  t.match(await readFile(join(root, 'etc/bornemisza/app.toml'), 'utf8'), 'private_address = "10.0.0.11"');
});

t.test('without --wait there is one attempt, and nothing waits longer than its token lives', async (t) => {
  const root = await place(t);
  const host = lateHost();
  const once = await runCli(['join', '-', '--root', root], { host, stdin: token(60_000) });
  t.match(once, { code: 1, err: /no private address/ });
  t.equal(host.looks(), 1);
  const nowhere = fakeHost({ devices: { eth0: ['203.0.113.7'] } });
  const beganMs = Date.now();
  const ended = await runCli(['join', '-', '--wait', '--root', root], { host: nowhere, stdin: token(2500) });
  t.match(ended, { code: 1, err: /no private address/ });
  t.ok(Date.now() - beganMs < 30_000);
  t.equal((await runCli(['join', '-', '--wait', 'x', '--root', root])).code, 2);
});

t.test('on a terminal the token, and what only the operator can know, are asked for', async (t) => {
  const root = await place(t);
  const host = fakeHost({ devices: { eth0: ['203.0.113.7'], eth1: ['10.0.0.11'], eth2: ['10.9.0.11'] } });
  const answers = [token(60_000), '10.9.0.99', '10.9.0.11'];
  const { err } = await runCli(['join', '--root', root], { host, answers });
  t.match(err, /^Paste the token, then Enter: This host has 2 private addresses/);
  t.match(err, /10\.9\.0\.99 is not on this host.*\nAddress for the cluster’s own traffic: /);
  t.match(await readFile(join(root, 'etc/bornemisza/app.toml'), 'utf8'), 'private_address = "10.9.0.11"');

  const named = await place(t);
  const made = fakeHost({ hostname: 'ip-10-0-0-11.ec2.internal', devices: { eth1: ['10.0.0.11'] } });
  const init = ['init', '--role', 'app', '--root', named];
  t.match((await runCli(init, { host: made })).err, /domain of .* belongs to your provider/);
  t.equal((await runCli(init, { host: made, answers: [] })).code, 1, 'no answer is none');
  t.match(await runCli(init, { host: made, answers: ['Shop!', 'shop'] }), {
    code: 0,
    out: /of cluster shop/,
  });
});

t.test('--start starts the unit of the role, and reports why it does not start', async (t) => {
  const root = await place(t);
  const started: string[] = [];
  const host = (code: number): Host => ({
    ...fakeHost({
      devices: { eth1: ['10.0.0.11'] },
      programs: {
        systemctl: (args) => {
          started.push(args.join(' '));
          return { code, stderr: code === 0 ? '' : 'Job for bornemisza@app.service failed.' };
        },
      },
    }),
  });
  const init = ['init', '--role', 'app', '--cluster', 'shop', '--start', '--root', root];
  const made = await runCli(init, { host: host(1) });
  t.match(made, { code: 1, err: /the node is set up, and bornemisza@app did not start: Job for/ });
  t.match(made.out, /recovery bundle/, 'the bundle is handed over before');
  t.strictSame(started, ['enable --now bornemisza@app']);
});
