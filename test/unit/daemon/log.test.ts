import t from 'tap';
import { OperatorError } from '../../../src/daemon/errors.ts';
import { createLog, formatLine, type LogLevel } from '../../../src/daemon/process/log.ts';

function logged(journal: boolean, level: LogLevel = 'info') {
  const lines: string[] = [];
  return { lines, log: createLog({ level, journal, write: (line) => lines.push(line) }) };
}

t.test('a line has the event, its reason, the next step, then the facts', async (t) => {
  const { lines, log } = logged(false);
  const err = new OperatorError('x', 'no space left', 'unused');
  log.warn(
    { err, next: 'free the disk', code: 'disk-full', path: '/var/my file' },
    'the roster cannot be saved',
  );
  t.strictSame(lines, [
    'the roster cannot be saved: no space left -- free the disk code=disk-full path="/var/my file"\n',
  ]);
  log.info({ missing: undefined, many: 3, kind: { a: 1 } }, 'facts');
  t.equal(lines[1], 'facts many=3 kind="{\\"a\\":1}"\n');
});

t.test('each level has the priority that journald reads', async (t) => {
  const { lines, log } = logged(true, 'debug');
  log.fatal('f');
  log.error('e');
  log.warn('w');
  log.info('i');
  log.debug('d');
  t.strictSame(lines, ['<2>f\n', '<3>e\n', '<4>w\n', '<6>i\n', '<7>d\n']);
  const quiet = logged(true, 'warn');
  quiet.log.info('not shown');
  quiet.log.warn('shown');
  t.strictSame(quiet.lines, ['<4>shown\n']);
});

t.test('no value can forge a second entry', async (t) => {
  const { lines, log } = logged(true);
  const forged = 'x\n<0>the cluster is on fire\r\n<0>again';
  log.error({ err: new Error(forged), next: forged, peer: forged, [forged]: 1 }, forged);
  t.equal(lines.length, 1);
  t.match(lines[0], /^<3>[^\n\r]*\n$/);
});

t.test('nothing hides a line: journalctl shows no line that holds control characters', async (t) => {
  const line = formatLine({ level: 40, msg: 'a\u001b[2Jb\u0000c\td\u009be' }, true);
  t.equal(line, '<4>a\uFFFD[2Jb\uFFFDc d\uFFFDe');
});

t.test('a long value hides neither the others nor forges an entry where journald cuts', async (t) => {
  const line = formatLine({ level: 30, msg: 'told', long: 'y'.repeat(5000), after: 'seen' }, false);
  t.match(line, /^told long=y{395} after=seen$/);
  const huge = formatLine({ level: 30, msg: `${'z'.repeat(48 * 1024)}<0>forged` }, true);
  t.ok(huge.length < 10_000, `${huge.length}`);
  t.notMatch(huge, 'forged');
});
