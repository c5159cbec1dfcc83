import { chmod, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { ownUnit, reasonToEnd } from '../../../src/daemon/process/goodbye.ts';

t.test('our unit is read from the cgroup that systemd put us in', async (t) => {
  const cases: readonly (readonly [text: string, unit: string | undefined])[] = [
    ['0::/system.slice/system-bornemisza.slice/bornemisza@app.service\n', 'bornemisza@app.service'],
    ['0::/bornemisza.slice/bornemisza@db.service', 'bornemisza@db.service'],
    ['12:pids:/x\n1:name=systemd:/system.slice/bornemisza@db.service\n0::/x\n', 'bornemisza@db.service'],
    ['0::/user.slice/user-0.slice/session-1.scope\n', undefined],
    ['0::/system.slice/bornemisza-haproxy@app.service\n', undefined],
    ['0::/system.slice/not-bornemisza@app.service\n', undefined],
    ['0::/system.slice/bornemisza@app.service/child\n', undefined],
    ['0::/system.slice/bornemisza@a b.service\n', undefined],
    ['0::/\n', undefined],
    ['', undefined],
  ];
  for (const [text, unit] of cases) t.equal(ownUnit(text), unit, JSON.stringify(text));
});

t.test('what systemd says makes a restart, a shutdown or a stop', async (t) => {
  const unit = 'bornemisza@app.service';
  const cases: readonly (readonly [running: string, jobs: string, reason: string])[] = [
    ['running', `12 ${unit} restart running`, 'restart'],
    ['degraded', `12 ${unit} start waiting`, 'restart'],
    ['running', `12 ${unit} stop running`, 'stop'],
    ['running', '', 'stop'],
    ['stopping', `12 ${unit} stop running`, 'shutdown'],
    ['stopping', `12 ${unit} restart running`, 'shutdown'],
    ['', '', 'stop'],
  ];
  const path = process.env['PATH'];
  t.teardown(() => (process.env['PATH'] = path));
  for (const [running, jobs, reason] of cases) {
    const directory = t.testdir();
    const script =
      `#!/bin/sh\ncase "$1" in is-system-running) echo '${running}'; exit 1;; list-jobs) echo '${jobs}';; ` +
      `esac\n`;
    await writeFile(join(directory, 'systemctl'), script);
    await chmod(join(directory, 'systemctl'), 0o755);
    process.env['PATH'] = `${directory}:${path}`;
    t.equal(await reasonToEnd(unit, 60_000), reason, `${running} / ${jobs}`);
  }
  const directory = t.testdir();
  const late = `#!/bin/sh\n/bin/sleep 2\necho '12 ${unit} restart running'\n`;
  await writeFile(join(directory, 'systemctl'), late);
  await chmod(join(directory, 'systemctl'), 0o755);
  process.env['PATH'] = directory;
  t.equal(await reasonToEnd(unit), 'restart', 'a restart on a busy machine is no stop');
  await writeFile(join(directory, 'systemctl'), '#!/bin/sh\nexec /bin/sleep 3600\n');
  await chmod(join(directory, 'systemctl'), 0o755);
  process.env['PATH'] = directory;
  t.equal(await reasonToEnd(unit, 100), 'stop', 'a systemd that hangs is not waited for');
  process.env['PATH'] = t.testdir();
  t.equal(await reasonToEnd(unit), 'stop', 'without systemd it is a stop');
  t.equal(await reasonToEnd(undefined), 'stop', 'started by hand it is a stop');
});
