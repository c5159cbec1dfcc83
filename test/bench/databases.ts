import { parseArgs } from 'node:util';
import { bounded } from '../../src/plugins/couchdb/copies.ts';
import { Cluster, real } from '../integration/couchdb-cluster.ts';
import { makeSmall, secondsToGrowMany, WIDTH } from '../integration/couchdb-coordinators.ts';
import { createReport } from './report.ts';

/**
 * `bench:databases`: a database for each of many people. How long a second node takes to join, beside a coordinator
 * that does the same by hand in the same run; how long the first node takes to open again after a restart. On the
 * stand-in, or on the release that LAB_COUCHDB names.
 */
const { values } = parseArgs({
  options: { databases: { type: 'string', default: '500' }, json: { type: 'boolean', default: false } },
});
const databases = Number(values.databases);
const report = createReport('databases', values.json);

const JOIN_RATIO_LIMIT = 2;
const OPEN_LIMIT_S = 30;
const PATIENCE_MS = 3_600_000;

const security = { admins: { names: [], roles: ['_admin'] }, members: { names: ['alice'], roles: [] } };

async function ours(): Promise<{ join: number; open: number }> {
  const cluster = await Cluster.make();
  try {
    const first = await cluster.add();
    await cluster.serving([first], PATIENCE_MS);
    const names = Array.from({ length: databases }, (_, index) => `person-${index}`);
    await bounded(names, WIDTH, (name) => makeSmall(first, name, security));
    report.say(`  ${databases} databases are made`);
    const joins = performance.now();
    const second = await cluster.add();
    await cluster.until('the second serves', () => second.plugin.known().phase === 'serving', PATIENCE_MS);
    const join = (performance.now() - joins) / 1000;
    report.say(`  joined after ${join.toFixed(1)} s`);
    await cluster.serving([first, second], PATIENCE_MS);
    await first.stop();
    await cluster.until('its end is seen', () => first.plugin.known().phase !== 'serving', PATIENCE_MS);
    const opens = performance.now();
    await first.start();
    await cluster.until('the first serves', () => first.plugin.known().phase === 'serving', PATIENCE_MS);
    return { join, open: (performance.now() - opens) / 1000 };
  } finally {
    await cluster.close();
  }
}

report.say(real ? 'on a release of CouchDB' : 'on the stand-in');
const { join, open } = await ours();
const bare = await secondsToGrowMany(databases);
report.value('join', 2, 'bornemisza', 'seconds', 's', join, { databases });
report.value('join', 2, 'bare', 'seconds', 's', bare, { databases });
report.value('join', 2, 'bornemisza', 'ratio', 'ratio', join / bare, { databases });
report.value('open', 2, 'bornemisza', 'seconds', 's', open, { databases });
report.expect(
  join <= JOIN_RATIO_LIMIT * bare,
  `join: ${(join / bare).toFixed(2)} times bare, at most ${JOIN_RATIO_LIMIT}`,
);
report.expect(open <= OPEN_LIMIT_S, `open again: ${open.toFixed(1)} s, at most ${OPEN_LIMIT_S}`);
report.end();
