import { mkdir } from 'node:fs/promises';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { execFileSync } from 'node:child_process';
import axe from 'axe-core';
import type { Page } from 'playwright-core';
import t, { type Test } from 'tap';
import { AppBed, ORIGIN } from '../integration/app-bed.ts';
import { front, launch, strictContext } from './bed.ts';

/** The page in a real browser: a person's way through it, offline, at another node, for everybody, within its size. */
t.setTimeout(2_300_000);
const ROOT = join(import.meta.dirname, '../..');
const WEB = join(ROOT, 'dist/web');
/** `npm run page:pictures` has them written anew; a run of the test writes none. */
const PICTURES = process.env['PICTURES'];
const PASSWORD = 'four green turtles';
const MOST_BYTES = 40_000;

execFileSync(process.execPath, [join(ROOT, 'scripts/web.ts')], { stdio: 'ignore' });
const bed = await AppBed.start();
const one = await bed.addNode(`web_root = "${WEB}"`);
const two = await bed.addNode(`web_root = "${WEB}"`);
const edge = await front([one, two]);
const browser = await launch(edge.port);
t.teardown(async () => {
  await browser.close();
  await edge.close();
  await bed.close();
});

t.test('everything that is delivered has at most 40,000 bytes uncompressed', async (t) => {
  const files = (await readdir(WEB)).filter((name) => !/\.(br|gz)$/.test(name));
  const sizes = await Promise.all(files.map(async (name) => (await stat(join(WEB, name))).size));
  const bytes = sizes.reduce((sum, each) => sum + each, 0);
  t.ok(bytes > 10_000 && bytes <= MOST_BYTES, `${bytes} bytes in ${files.length} files`);
});

t.test('register, confirm, write notes, lose the node, go offline, come back, sign out', async (t) => {
  const { context, faults } = await strictContext(browser, {
    locale: 'en-GB',
    viewport: { width: 320, height: 640 },
  });
  const page = await context.newPage();
  await page.goto(ORIGIN);
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
  await look(t, page, 'sign-in');
  await page.getByRole('main').getByRole('link', { name: 'Create an account' }).click();
  await page.getByLabel('E-mail address').fill('anna@example.org');
  await look(t, page, 'register');
  await page.getByRole('button', { name: 'Send the link' }).click();
  await page.getByRole('heading', { name: 'Check your mail' }).waitFor();
  await look(t, page, 'mail-sent');
  const { token } = await bed.mailTo('anna@example.org');
  await page.goto(`${ORIGIN}/choose-password#${token}`);
  await page.getByLabel('Password').fill('short');
  await page.getByRole('button', { name: 'Save' }).click();
  await page.getByText('at least 12 characters').waitFor();
  t.equal(new URL(page.url()).hash, '', 'the token does not stay in the address');
  await look(t, page, 'choose-password');
  await page.getByLabel('Password').fill(PASSWORD);
  await page.getByRole('button', { name: 'Save' }).click();
  await page.getByRole('heading', { name: 'Notes' }).waitFor();
  await page.getByText('No notes yet').waitFor();
  await look(t, page, 'no-notes');
  await write(page, 'Order the new labels before Friday');
  const markup = '<img src=x onerror="document.title = 1"><script>document.title = 2</script>';
  await write(page, markup);
  t.equal(await page.title(), 'Notes', 'what a person writes is text, and nothing of it runs');
  await write(page, 'Ask Anna whether the market in Leipzig takes place, and what a table costs there');
  await page.getByText('Waiting for the connection').waitFor({ state: 'detached' });
  await page.getByRole('button', { name: `Delete: ${markup.slice(0, 40)}` }).click();
  await page.getByText(markup).waitFor({ state: 'detached' });
  await look(t, page, 'notes');

  await one.end('SIGKILL');
  await write(page, 'written after the node died');
  await stored(page, 3);

  await context.setOffline(true);
  await write(page, 'written offline');
  await page.getByText('Waiting for the connection').waitFor();
  await page.reload();
  await page.getByText('written offline').waitFor();
  await look(t, page, 'offline');
  await context.setOffline(false);
  await stored(page, 4);

  await page.getByRole('link', { name: 'Account' }).click();
  await page.getByText('anna@example.org').waitFor();
  await look(t, page, 'account');
  await page.getByText('Change password').click();
  await page.getByLabel('Current password').fill('wrong wrong wrong');
  await page.getByLabel('New password').fill(PASSWORD);
  await page.getByRole('button', { name: 'Save' }).click();
  await page.getByText('The password is wrong.').waitFor();
  await look(t, page, 'account-error');
  await page.getByRole('button', { name: 'Sign out', exact: true }).click();
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
  const kept = await page.evaluate(`indexedDB.databases().then(async (all) => {
    const result = (request) => new Promise((done) => { request.onsuccess = () => done(request.result); });
    const open = await result(indexedDB.open('notes', 1));
    return result(open.transaction('kept').objectStore('kept').count());
  })`);
  t.equal(kept, 0, 'nothing of a person stays on the device');
  t.same(faults, [], 'no error and no violation of the policy');
  await context.close();
});

t.test('in German and in the dark', async (t) => {
  const options = { locale: 'de-DE', colorScheme: 'dark', viewport: { width: 1024, height: 700 } };
  const { context, faults } = await strictContext(browser, options);
  const page = await context.newPage();
  await page.goto(`${ORIGIN}/forgotten`);
  await page.getByRole('heading', { name: 'Passwort vergessen' }).waitFor();
  t.equal(await page.evaluate('document.documentElement.lang'), 'de');
  await look(t, page, 'forgotten-german');
  await page.goto(`${ORIGIN}/new-password#token`);
  await page.getByRole('heading', { name: 'Neues Passwort' }).waitFor();
  await look(t, page, 'new-password-german');
  await page.getByLabel('Neues Passwort').fill(PASSWORD);
  await page.getByRole('button', { name: 'Speichern' }).click();
  await page.getByText('Dieser Link wurde schon benutzt oder ist zu alt.').waitFor();
  await look(t, page, 'link-expired-german');
  await page.goto(`${ORIGIN}/nowhere`);
  await page.getByRole('heading', { name: 'Diese Seite gibt es nicht.' }).waitFor();
  await look(t, page, 'not-found');
  t.same(faults, []);
  await context.close();
});

async function write(page: Page, text: string): Promise<void> {
  await page.getByLabel('New note').fill(text);
  await page.getByRole('button', { name: 'Add' }).click();
  await page.getByText(text).waitFor();
}

/** So many notes have reached the database. */
async function stored(page: Page, count: number): Promise<void> {
  const read = `fetch('/api/data/_all_docs').then((a) => a.json()).then((a) => a.total_rows).catch(() => -1)`;
  await bed.until(async () => (await page.evaluate(read)) === count, `${count} notes in the database`);
  await page.getByText('Waiting for the connection').waitFor({ state: 'detached' });
}

/** No fault that axe finds, nothing wider than the window, and a picture where one is wanted. */
async function look(t: Test, page: Page, name: string): Promise<void> {
  // In a world of its own, so that the page's policy stays as it is.
  const session = await page.context().newCDPSession(page);
  const { frameTree } = await session.send('Page.getFrameTree');
  const world = await session.send('Page.createIsolatedWorld', {
    frameId: frameTree.frame.id,
    worldName: 'axe',
  });
  const run = async (expression: string) =>
    session.send('Runtime.evaluate', {
      contextId: world.executionContextId,
      expression,
      awaitPromise: true,
      returnByValue: true,
    });
  await run(axe.source);
  // A note that comes in is faint for 0.2 s, and axe would measure that.
  await run('Promise.all(document.getAnimations().map(({ finished }) => finished))');
  const { result } = await run(`axe.run().then(({ violations }) =>
    violations.map(({ id, nodes }) => id + ': ' + nodes.map(({ html }) => html).join(' ')))`);
  t.same(result.value, [], `${name}: axe finds nothing`);
  const wide = await run('document.documentElement.scrollWidth - document.documentElement.clientWidth');
  t.equal(wide.result.value, 0, `${name}: nothing is wider than the window`);
  await session.detach();
  if (PICTURES === undefined) return;
  await mkdir(PICTURES, { recursive: true });
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    await page.screenshot({ path: join(PICTURES, `${name}-${colorScheme}.png`), fullPage: true });
  }
  await page.emulateMedia({ colorScheme: null, reducedMotion: null });
}
