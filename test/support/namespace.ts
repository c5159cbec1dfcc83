import t, { type Test } from 'tap';
import { ENDS_WITH_US } from './with-us.ts';

const INSIDE = 'BORNEMISZA_TEST_NAMESPACE';

/**
 * The whole of a test file, run by the same file once more in namespaces of its own, which end with it.
 *
 * @param file `import.meta.filename` of the test
 * @param namespaces flags of unshare(1), e.g. `--net`
 */
export function testInNamespace(
  file: string,
  namespaces: readonly string[],
  name: string,
  inside: (t: Test) => Promise<void>,
): void {
  if (process.env[INSIDE] !== undefined) {
    t.test(name, inside);
    return;
  }
  const [setpriv, ...flags] = ENDS_WITH_US;
  t.spawn(
    setpriv,
    [...flags, 'unshare', ...namespaces, '--kill-child', process.execPath, ...process.execArgv, file],
    { env: { ...process.env, [INSIDE]: '1' } },
    'in a namespace of its own',
  );
}
