import t from 'tap';
import { planHaproxy } from '../../../src/plugins/haproxy/plan.ts';
import { render } from '../../../src/plugins/haproxy/render.ts';
import { sha256 } from '../../../src/plugins/haproxy/files.ts';
import { sightOf } from '../../../src/plugins/haproxy/status.ts';
import { app, layout, noSite, runningAs } from './haproxy-cases.ts';

const off = render(app(), layout);
const on = render(app({ requestsLogged: true }), layout);
const configOf = ({ files }: typeof off): string =>
  files.find(({ name }) => name === 'haproxy.cfg')?.content ?? '';

t.test(
  'every request is logged by one command to the running process: no reload, no cut session',
  async (t) => {
    t.equal(on.structure, off.structure);
    const observed = {
      files: new Map(off.files.map(({ name, content }) => [name, sha256(content)])),
      running: runningAs(off),
      refused: new Set<string>(),
      site: noSite,
      ipv6: false,
    };
    const changes = planHaproxy(on, observed, sha256);
    t.strictSame(
      changes.map(({ summary }) => summary),
      ['haproxy.cfg: rewritten', 'request_log/requests: maint → ready (each request is logged)'],
    );
    t.strictSame(
      planHaproxy(on, { ...observed, files: new Map(), running: runningAs(on) }, sha256)
        .filter(({ kind }) => kind !== 'file')
        .map(({ summary }) => summary),
      [],
    );
  },
);

t.test('the switch is no server in use, for the line in status', async (t) => {
  t.equal(sightOf(runningAs(on), undefined), sightOf(runningAs(off), undefined));
});

t.test('the line in status names the reload that a new member needs', async (t) => {
  t.match(sightOf({ ...runningAs(on), addsServers: false }, undefined), /; .*each new member is a reload$/);
  t.notMatch(sightOf(runningAs(on), undefined), /reload/);
});

t.test('a line of the log is JSON, has no query, and its texts are cut', async (t) => {
  const format = /^ {2}log-format "(\{.*\})"$/m.exec(configOf(off))?.[1]?.replaceAll('\\"', '"') ?? '';
  const line = format
    .replaceAll(/%\[[^\]]*json\(utf8s\)\]/g, 'a text')
    .replaceAll(/%\[sc1_get_gpc1\]/g, '-')
    .replaceAll(/%\[date,utime\([^)]*\)\]/g, '2026-11-30T11:00:00Z')
    .replaceAll(/%(ST|B|Ta)/g, '-1')
    .replaceAll(/%(ci|HM|b|s|ts)\b/g, 'x');
  t.strictSame(JSON.parse(line), {
    ...{ n: '-', time: '2026-11-30T11:00:00Z', client: 'x', method: 'x', host: 'a text', path: 'a text' },
    ...{ status: -1, bytes: -1, ms: -1, backend: 'x', server: 'x', end: 'x', agent: 'a text' },
  });
  t.notMatch(format, /%(HU|HQ|r)\b|query|url/, 'nothing that holds the query');
  for (const [text] of format.matchAll(/%\[var[^\]]*\]/g)) t.match(text, /,bytes\(0,\d+\),json\(utf8s\)\]$/);
});
