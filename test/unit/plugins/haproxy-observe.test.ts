import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { PluginError } from '../../../src/plugins/contract.ts';
import { HaproxyFiles } from '../../../src/plugins/haproxy/files.ts';
import { Observer } from '../../../src/plugins/haproxy/observe.ts';
import { Sockets } from '../../../src/plugins/haproxy/sockets.ts';

/** What 2.4.22's master lists, recorded: after a reload that failed at the path of a socket, and after a good one. */
const HEAD = `#<PID>          <type>          <relative PID>  <reloads>       <uptime>        <version>
2784            master          0               2               0d00h00m06s     2.4.22-f8e3218e2
# workers
`;
const FAILED = `${HEAD}# old workers
2787            worker          [was: 1]        2               0d00h00m06s     2.4.22-f8e3218e2
# programs

`;
const GOOD = `${HEAD}2917            worker          1               0               0d00h00m02s     2.4.22-f8e3218e2
# programs

`;

/** The error of an observation where nobody accepts at the statistics socket. */
async function errorWith(t: Test, master: string | undefined): Promise<PluginError> {
  const directory = await mkdtemp(join(tmpdir(), 'bm-observe-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const sockets = new Sockets('app', directory);
  for (const [path, answer] of [
    [sockets.stats, undefined],
    [sockets.master, master],
  ] as const) {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => undefined);
      if (answer !== undefined) socket.end(answer);
      else t.teardown(() => socket.destroy());
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    t.teardown(() => server.close());
  }
  const observer = new Observer('app', 'haproxy', new HaproxyFiles(directory), sockets);
  return observer.running(AbortSignal.timeout(60_000)).then(
    () => t.fail('was expected to fail'),
    (error: PluginError) => error,
  ) as Promise<PluginError>;
}

t.test('sockets that a failed process left behind need a restart, and no other silence does', async (t) => {
  t.match(await errorWith(t, FAILED), {
    code: 'haproxy-needs-restart',
    outcome: 'retry',
    message: /serves with its former configuration/,
    next: /`systemctl restart bornemisza-haproxy@app\.service`/,
  });
  t.match(await errorWith(t, GOOD), { code: 'haproxy-silent' });
  t.match(await errorWith(t, undefined), { code: 'haproxy-silent' });
});
