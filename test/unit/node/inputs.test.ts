import t from 'tap';
import { settingsDigest } from '../../../src/daemon/config/digest.ts';
import { appInput } from '../../../src/daemon/node/inputs.ts';
import { look } from '../../../src/daemon/node/look.ts';
import { render } from '../../../src/plugins/haproxy/render.ts';
import { appHaproxy } from '../../../src/roles/app.ts';
import { app, layout } from '../plugins/haproxy-cases.ts';
import { believed, configOf, EMPTY_MEMORY, scene } from './scenes.ts';

t.test('browsers are bound to HTTPS only where the configuration says for how long', async (t) => {
  const linesFor = (more: string): string[] => {
    const config = configOf('app', more);
    const input = appInput(look(scene([believed('app1/app')], { config }), EMPTY_MEMORY));
    if (input === undefined) throw new Error('the certificates are there');
    const { certificates } = app();
    const { files } = render({ ...appHaproxy(input), certificates }, layout);
    return files.flatMap(({ content }) => content.match(/.*Strict-Transport.*/g) ?? []);
  };
  t.strictSame(linesFor(''), []);
  t.strictSame(linesFor('[edge]\nhsts_max_age_s = 300\n'), [
    '  http-response set-header Strict-Transport-Security max-age=300',
  ]);
  t.throws(() => configOf('app', '[edge]\nhsts_max_age_s = 63072001\n'), /hsts_max_age_s/);
  const digest = (more = '') => settingsDigest(configOf('app', more));
  t.not(digest('[edge]\nhsts_max_age_s = 300\n'), digest(), 'nodes that differ are reported');
});
