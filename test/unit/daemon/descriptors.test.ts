import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';

const run = promisify(execFile);
const source = (file: string): string => JSON.stringify(join(import.meta.dirname, '../../../src', file));

/**
 * A process that has used up its file descriptors asks for each thing that takes one. It must be told each time, and
 * live: an error that nobody listens for ends a Node process, and a question that could not be asked says nothing about
 * a service.
 */
const SCRIPT = `
  import { openSync } from 'node:fs';
  import { createServer } from 'node:http';
  import { setTimeout as pause } from 'node:timers/promises';
  import { runCommand } from ${source('host/command.ts')};
  import { fileError } from ${source('host/files.ts')};
  import { serviceManager } from ${source('daemon/process/systemd.ts')};
  import { announceEntry } from ${source('daemon/audit/trail.ts')};
  import { probe } from ${source('daemon/health/probe.ts')};
  import { Checks } from ${source('daemon/health/health.ts')};
  import { systemClock } from ${source('daemon/clock.ts')};
  import { writeFile } from 'node:fs/promises';
  const server = createServer((_, response) => response.end()).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const target = { kind: 'http', address: '127.0.0.1', port: server.address().port, path: '/' };
  const changes = [];
  const timing = { intervalMs: 50, fastIntervalMs: 20, timeoutMs: 2000, rise: 2, fall: 2, returnDelayMs: 0 };
  const checks = new Checks(timing, { clock: systemClock, changed: ({ health }) => changes.push(health) });
  checks.set([{ name: 'site', required: true, target }]);
  await checks.decided(20000);
  const said = { before: checks.node };
  const told = [];
  const manager = serviceManager({ NOTIFY_SOCKET: '/nowhere' }, (error) => told.push(error.code));
  const log = { warn: ({ err }) => told.push(err?.code), info() {}, debug() {} };
  const held = [];
  for (;;) try { held.push(openSync('/dev/null')); } catch { break; }
  const command = runCommand('true', [], { timeoutMs: 5000 });
  said.command = await command.then(() => 'ran', ({ code, cause }) => code + ' ' + cause?.code);
  for (const word of ['ready', 'status', 'reloading', 'stopping', 'watchdog']) await manager[word]('text');
  const entry = { id: 1, at: '', kind: 'note', result: 'done', summary: 'x', trigger: '', subjects: [], changes: [] };
  announceEntry(entry, log, true);
  await pause(200);
  said.told = told;
  said.probe = await probe(target, 1000);
  said.tcp = await probe({ ...target, kind: 'tcp' }, 1000);
  said.file = await writeFile('/tmp/never', '').then(() => 'written', (error) => fileError(error, '/tmp/never').code);
  await pause(500);
  said.after = checks.node;
  said.detail = checks.verdicts[0].detail;
  said.changes = changes;
  process.stdout.write(JSON.stringify(said));
  process.exit(0);
`;

t.test('a process without file descriptors reports that, blames no service and survives', async (t) => {
  const argv = [
    '-c',
    'ulimit -n 60; exec "$0" --input-type=module-typescript --eval "$1"',
    process.execPath,
    SCRIPT,
  ];
  const { stdout } = await run('sh', argv, { timeout: 60_000 });
  t.match(JSON.parse(stdout), {
    before: 'up',
    command: 'command-failed EMFILE',
    told: Array.from({ length: 6 }, () => 'EMFILE'),
    probe: { passed: false, failure: 'unasked', detail: 'the check could not run: EMFILE' },
    tcp: { passed: false, failure: 'unasked' },
    file: 'no-file-descriptors',
    after: 'up',
    detail: 'the check could not run: EMFILE',
    changes: ['up'],
  });
});
