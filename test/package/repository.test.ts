import { copyFile, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { basename, join } from 'node:path';
import t, { type Test } from 'tap';
import { writeRepository } from '../../scripts/repository.ts';
import { buildPackage } from '../../scripts/rpm.ts';
import { root as tree, run } from '../../scripts/run.ts';
import { libraryNeeds, makeKey, makeStubs } from './repository-bed.ts';

/**
 * What `npm run rpm -- --repository URL` hands out, as a founder's web server serves it, to a real dnf that knows of it
 * nothing but the repo file.
 */
const directory = await mkdtemp('/var/tmp/bm-repository-');
t.teardown(() => rm(directory, { recursive: true, force: true }));
const at = (name: string): string => join(directory, name);
const [served, known, distribution] = [at('served'), at('yum.repos.d'), at('distribution')];
const key = await makeKey(directory);
for (const each of [served, known, distribution]) await mkdir(each);
const built = await buildPackage({ out: served, key: key.secret });
const unsigned = (await buildPackage({ out: at('unsigned'), release: '2', bundle: false })).file;

/** What the package needs of the distribution: empty packages in a repository of their own. */
await makeStubs(directory, distribution, await libraryNeeds(built.file));
await run('createrepo_c', ['--quiet', distribution]);
await writeFile(
  join(known, 'distribution.repo'),
  `[distribution]\nname=Distribution\nbaseurl=file://${distribution}\nenabled=1\ngpgcheck=0\n`,
);

/** What the server changes on the way, by the end of the path. */
const tampered = new Map<string, (content: Buffer) => Buffer>();
const asked: string[] = [];
const server = createServer((request, response) => {
  const name = new URL(request.url ?? '/', 'http://x').pathname.replace(/^\/el\//, '');
  asked.push(name);
  const change = [...tampered].find(([end]) => name.endsWith(end))?.[1] ?? ((content: Buffer) => content);
  readFile(join(served, name)).then(
    (content) => response.end(change(content)),
    () => response.writeHead(404).end(),
  );
});
await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
t.teardown(() => server.close());
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/el`;

/** The two lines that docs/install.md has for each machine. */
const guide = await readFile(join(tree, 'docs/install.md'), 'utf8');
const [, target = '', there = '', command = ''] =
  /^ {4}curl -o (\S+) https:\/\/packages\.example\.com\/el\/(\S+)\n {4}dnf (.*)$/m.exec(guide) ?? [];

/** As on a host that never saw the repository: else it goes on with what it has in its cache. */
async function fresh(): Promise<void> {
  for (const name of ['cache', 'persist', 'root']) await rm(at(name), { recursive: true, force: true });
  await run('curl', ['--fail', '-s', '-o', join(known, basename(target)), `${url}/${there}`]);
}

/** Into a root of its own. The founder's answer to the question for the key is yes. */
function dnf(...args: readonly string[]): Promise<string> {
  return run('dnf', [
    '-y',
    '--releasever=9',
    '--noplugins',
    // Nothing of the stubs can run.
    '--setopt=tsflags=noscripts',
    // Debian's dnf.conf has it otherwise: a repository that is refused would be passed over.
    '--setopt=skip_if_unavailable=False',
    // What is refused once is refused again.
    '--setopt=retries=1',
    `--setopt=reposdir=${known}`,
    `--setopt=cachedir=${at('cache')}`,
    `--setopt=persistdir=${at('persist')}`,
    `--installroot=${at('root')}`,
    ...args,
  ]);
}

const install = async (): Promise<string> => {
  await fresh();
  return await dnf(...command.split(' '));
};
const isThere = (): Promise<boolean> =>
  readFile(at('root/usr/bin/bornemisza')).then(
    () => true,
    () => false,
  );

async function refused(t: Test, why: RegExp, what: string): Promise<void> {
  await t.rejects(install(), why, what);
  t.notOk(await isThere(), `${what}: nothing is installed`);
}

t.test('the lines of docs/install.md install the package from a web server', async (t) => {
  t.equal(target, '/etc/yum.repos.d/bornemisza.repo');
  t.equal(command, 'install bornemisza-node');
  const file = await writeRepository(served, `${url}/`, key.secret);
  t.equal(basename(file), there);
  const text = await readFile(file, 'utf8');
  t.match(text, `baseurl=${url}\n`, 'without the last slash');
  t.match(text, /^gpgcheck=1\nrepo_gpgcheck=1$/m);
  await install();
  t.ok(await isThere());
  for (const name of ['repodata/repomd.xml.asc', 'RPM-GPG-KEY-bornemisza', basename(built.file)])
    t.ok(asked.includes(name), `dnf fetched ${name}`);
});

t.test('what somebody without the key changes on the web server is refused', async (t) => {
  const flip = (content: Buffer): Buffer => {
    const middle = Math.floor(content.length / 2);
    return Buffer.concat([
      content.subarray(0, middle),
      Buffer.from([(content[middle] ?? 0) ^ 1]),
      content.subarray(middle + 1),
    ]);
  };
  tampered.set(basename(built.file), flip);
  await refused(t, /checksum|Error downloading/i, 'one bit of the package');
  tampered.clear();
  tampered.set('repomd.xml', (content) => Buffer.concat([content, Buffer.from('\n')]));
  await refused(t, /GPG|signature/i, 'one byte of the metadata');
  tampered.clear();

  // Whoever has the server makes metadata of his own for his own package, as a founder does, and cannot sign them.
  await copyFile(unsigned, join(served, basename(unsigned)));
  await copyFile(join(served, 'repodata/repomd.xml.asc'), at('repomd.xml.asc'));
  await run('createrepo_c', ['--quiet', served]);
  await rename(at('repomd.xml.asc'), join(served, 'repodata/repomd.xml.asc'));
  await refused(t, /GPG|signature/i, 'other metadata, with the signature of the former');

  await writeRepository(served, url, key.secret);
  await refused(t, /not signed|GPG check FAILED/i, 'a package without a signature in signed metadata');
  await rm(join(served, basename(unsigned)));
  await writeRepository(served, url, key.secret);
  await install();
  t.ok(await isThere(), 'written again, it is signed again');
});

t.test('without a key, without packages and for what dnf cannot read there is no repository', async (t) => {
  const elsewhere = 'https://packages.shop.example/el';
  await t.rejects(writeRepository(served, elsewhere, undefined), /RPM_GPG_KEY/);
  await t.rejects(writeRepository(served, 'ftp://packages.shop.example', key.secret), /https/);
  await t.rejects(writeRepository(known, elsewhere, key.secret), /no package/);
});
