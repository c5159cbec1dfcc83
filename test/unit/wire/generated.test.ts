import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import t from 'tap';

const WIRE = fileURLToPath(new URL('../../../src/daemon/wire/', import.meta.url));

t.test('the generated code is what the schema generates', async (t) => {
  const out = await mkdtemp(join(tmpdir(), 'bornemisza-wire-'));
  t.teardown(() => rm(out, { recursive: true, force: true }));
  const buf = fileURLToPath(new URL('../../../node_modules/.bin/buf', import.meta.url));
  await promisify(execFile)(buf, ['generate', '--output', out], { cwd: WIRE, timeout: 300_000 });
  for (const file of ['membership_pb.js', 'membership_pb.d.ts']) {
    const fresh = await readFile(join(out, 'gen', file), 'utf8');
    t.equal(
      await readFile(join(WIRE, 'gen', file), 'utf8'),
      fresh,
      `${file}: run \`buf generate\` in src/daemon/wire`,
    );
  }
});
