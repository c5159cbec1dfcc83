import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { expose } from '../../src/daemon/metrics/exposition.ts';
import { familiesOf } from '../../src/daemon/metrics/families.ts';
import { Lag, processFacts } from '../../src/daemon/metrics/process-facts.ts';
import { spawnWithUs } from '../support/with-us.ts';
import { MEMBERS, status } from '../unit/cli/fake-daemon.ts';

/** What Prometheus itself says of our metrics and rules, by its own promtool(1). */

const monitoring = join(fileURLToPath(new URL('../../', import.meta.url)), 'monitoring');

function promtool(args: readonly string[], input = ''): Promise<{ code: number | null; out: string }> {
  return new Promise((resolve, reject) => {
    const child = spawnWithUs('promtool', args, { cwd: monitoring });
    let out = '';
    const take = (part: Buffer): void => void (out += part.toString());
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, out }));
    child.stdin.end(input);
  });
}

const scraped = (): string =>
  expose(
    familiesOf({
      status: status(),
      members: MEMBERS,
      upgrade: { state: 'none', startedAt: '', why: '', next: '', hosts: [] },
      siteEndMs: undefined,
      process: processFacts(new Lag(1000)),
      wallMs: Date.now(),
    }),
  );

t.test('Prometheus reads each metric, and finds no name or unit to complain of', async (t) => {
  const { code, out } = await promtool(['check', 'metrics'], scraped());
  t.equal(out, '');
  t.equal(code, 0);
  const bad = await promtool(['check', 'metrics'], '# TYPE a_total gauge\na_total 1\n');
  t.not(bad.code, 0, 'it would complain');
});

t.test('the alert rules are valid, and fire when they should and not before', async (t) => {
  const checked = await promtool(['check', 'rules', 'alerts.yml']);
  t.equal(checked.code, 0, checked.out);
  t.match(checked.out, /SUCCESS: 16 rules found/);
  const tested = await promtool(['test', 'rules', 'alerts.test.yml']);
  t.equal(tested.code, 0, tested.out);
});
