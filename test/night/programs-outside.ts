import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { launch } from '../browser/bed.ts';
import { freePort } from '../support/free-port.ts';
import { startPebble } from '../integration/acme-bed.ts';
import { AppBed } from '../integration/app-bed.ts';
import { Cluster } from '../integration/couchdb-cluster.ts';
import { Bed, dbDesired } from '../integration/haproxy-bed.ts';

/**
 * A process that starts what tests start outside of a lab, each by its own bed, says so in one line, and then waits to
 * be killed. It is no test: `lab-life.test.ts` kills it and looks what stays.
 */
const directory = await mkdtemp(join(tmpdir(), 'bm-outside-'));
const noTest = { testdir: () => directory, teardown: () => undefined } as unknown as Test;

async function haproxy(): Promise<void> {
  const bed = await Bed.make();
  const node = await bed.pki.leaf('db1', 'db');
  const address = bed.address(1);
  await bed.launch('db1', dbDesired({ address, node, ca: bed.pki.ca, couchdbPort: await freePort() }));
}

async function couchdb(): Promise<void> {
  const cluster = await Cluster.make();
  await cluster.serving([await cluster.add()]);
}

async function appTier(): Promise<void> {
  const bed = await AppBed.start();
  await bed.addNode();
}

await Promise.all([haproxy(), couchdb(), appTier(), startPebble(noTest), launch(await freePort())]);
console.log('all run');
