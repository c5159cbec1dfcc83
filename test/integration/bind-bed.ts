/** A real BIND on loopback whose zone takes updates by a key. */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Test } from 'tap';
import { Rfc2136Provider } from '../../src/plugins/dns/rfc2136.ts';
import { freePort } from '../support/free-port.ts';
import { until } from '../support/until.ts';
import { spawnWithUs } from '../support/with-us.ts';

const run = promisify(execFile);
export const ZONE = 'shop.example';

export interface Bind {
  readonly directory: string;
  readonly port: number;
  readonly keyFile: string;
  readonly provider: Rfc2136Provider;
}

/** @param founders lines of the zone file */
export async function startBind(t: Test, founders: string): Promise<Bind> {
  // Another call of testdir() would empty it.
  const directory = await mkdtemp(join(tmpdir(), 'bm-bind-'));
  const port = await freePort();
  await mkdir(join(directory, 'zone'), { recursive: true });
  for (const name of ['good', 'bad']) {
    const { stdout } = await run('tsig-keygen', ['bornemisza']);
    await writeFile(join(directory, `${name}.key`), stdout);
  }
  await writeFile(
    join(directory, 'zone', 'db'),
    `$TTL 300\n@ IN SOA ns root 1 3600 600 86400 60\n@ IN NS ns\nns IN A 127.0.0.1\n${founders}`,
  );
  await writeFile(
    join(directory, 'named.conf'),
    `include "${directory}/good.key";
options { directory "${directory}"; pid-file none; session-keyfile none;
  listen-on port ${port} { 127.0.0.1; }; listen-on-v6 { none; };
  recursion no; dnssec-validation no; allow-transfer { key bornemisza; }; };
controls { };
zone "${ZONE}" { type primary; file "zone/db"; update-policy { grant bornemisza subdomain ${ZONE} A AAAA SRV TXT; }; };
`,
  );
  const argv = ['-g', '-c', join(directory, 'named.conf'), '-n', '1'];
  const named = spawnWithUs('named', argv, { stdio: ['ignore', 'ignore', 'pipe'] });
  let log = '';
  named.stderr.on('data', (text: Buffer) => {
    log = `${log}${text.toString()}`.slice(-20_000);
  });
  t.teardown(async () => {
    const gone = once(named, 'exit');
    if (named.exitCode === null && named.signalCode === null && named.kill('SIGKILL')) await gone;
    await rm(directory, { recursive: true, force: true });
  });
  const keyFile = join(directory, 'good.key');
  const provider = new Rfc2136Provider({ zone: ZONE, server: '127.0.0.1', port, keyFile });
  const { signal } = new AbortController();
  await until(() => provider.list(signal).then(() => true), {
    deadlineMs: 60_000,
    everyMs: 100,
    what: `BIND: ${log}`,
  });
  return { directory, port, keyFile, provider };
}
