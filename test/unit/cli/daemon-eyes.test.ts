import { join } from 'node:path';
import t from 'tap';
import { unreadableForDaemon } from '../../../src/cli/daemon-eyes.ts';
import { pathsFor } from '../../../src/daemon/config/config.ts';
import { fakeHost } from './captured-io.ts';
import { place } from './place.ts';

t.test('the daemon’s user is asked for each file that the daemon reads, and for no other', async (t) => {
  const root = await place(t, {
    'etc/bornemisza/app.toml': '',
    'etc/bornemisza/services.d/a.toml': '',
    'etc/bornemisza/services.d/b.toml': '',
    'etc/bornemisza/services.d/.#b.toml': '',
    'etc/bornemisza/services.d/b.toml~': '',
  });
  const asked: string[] = [];
  const hostWith = (code: (file: string) => number, uid = 0) =>
    fakeHost({
      uid,
      programs: {
        setpriv: (args) => {
          const file = args.at(-1) ?? '';
          asked.push(args.slice(0, -1).join(' '), file.slice(root.length));
          return { code: code(file) };
        },
      },
    });
  const paths = pathsFor('app', root);
  const only = (name: string) => (file: string) => (file === join(paths.services, name) ? 1 : 0);
  t.match(await unreadableForDaemon(hostWith(only('b.toml')), paths, ''), [
    {
      code: 'config-unreadable',
      message: /the daemon \(user bornemisza\) cannot read \S+b\.toml, although root can/,
      next: /^chown root:bornemisza \S+b\.toml && chmod 640 \S+b\.toml$/,
    },
  ]);
  const as = '--reuid=bornemisza --regid=bornemisza --init-groups -- test -r';
  t.strictSame(asked, [
    as,
    '/etc/bornemisza/app.toml',
    as,
    '/etc/bornemisza/services.d/a.toml',
    as,
    '/etc/bornemisza/services.d/b.toml',
  ]);
  t.strictSame(
    await unreadableForDaemon(
      hostWith(() => 127),
      paths,
      '',
    ),
    [],
    'no answer is no refusal',
  );
  t.strictSame(await unreadableForDaemon(fakeHost({ uid: 0 }), paths, ''), [], 'nor a missing setpriv');
  t.strictSame(await unreadableForDaemon(hostWith(only('b.toml'), 1000), paths, ''), [], 'not root');
  t.strictSame(await unreadableForDaemon(hostWith(only('b.toml')), paths, root), [], 'nor under --root');
});
