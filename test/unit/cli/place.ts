import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

interface Teardown {
  teardown(fn: () => unknown): unknown;
}

/**
 * A directory for `--root` with the given files, gone after the test. tap's own would be too deep: the path of a unix
 * socket has 107 bytes at most (unix(7)).
 */
export async function place(test: Teardown, files: Readonly<Record<string, string>> = {}): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), 'bm-'));
  test.teardown(() => rm(root, { recursive: true, force: true }));
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), text);
  }
  return root;
}
