import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import t from 'tap';

interface Package {
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}
/** By their places below the project: '' is the project itself. */
type Packages = Readonly<Record<string, Package>>;

const file = join(resolve(import.meta.dirname, '../..'), 'package-lock.json');
const { packages } = JSON.parse(readFileSync(file, 'utf8')) as { packages: Packages };

/** What a package asks for and Node.js would find nowhere above it. npm install adds it, `npm ci` refuses. */
function missingIn(all: Packages): string[] {
  return Object.entries(all).flatMap(([place, each]) => {
    const asked = { ...each.dependencies, ...each.devDependencies, ...each.optionalDependencies };
    return Object.keys(asked)
      .filter((name) => !isFound(all, place, name))
      .map((name) => `${name}, of ${place === '' ? 'the project' : place}`);
  });
}

function isFound(all: Packages, place: string, name: string): boolean {
  for (let from = place; ; from = from.slice(0, Math.max(0, from.lastIndexOf('node_modules/') - 1))) {
    if (all[`${from === '' ? '' : `${from}/`}node_modules/${name}`] !== undefined) return true;
    if (from === '') return false;
  }
}

t.test('the lock file has each package that any asks for, of every platform', async (t) => {
  t.ok(Object.keys(packages).length > 400, `${Object.keys(packages).length} packages`);
  t.same(missingIn(packages), [], '`npm ci` takes it');
});

t.test('a package that the lock file lacks is named', async (t) => {
  const lacking = {
    '': { devDependencies: { formatter: '1' } },
    'node_modules/formatter': { optionalDependencies: { 'formatter-android': '1', 'formatter-linux': '1' } },
    'node_modules/formatter-linux': { dependencies: { inner: '1' } },
    'node_modules/formatter-linux/node_modules/inner': { dependencies: { formatter: '1' } },
  };
  t.same(missingIn(lacking), ['formatter-android, of node_modules/formatter']);
});
