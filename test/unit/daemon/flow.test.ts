import t from 'tap';
import { endStreams } from '../../../src/daemon/control/flow.ts';
import { EMPTY_LOCAL_STATE } from '../../../src/daemon/local-state.ts';

t.test('streams are ended only where nothing new comes', async (t) => {
  const shares: number[] = [];
  const flow = { endStreams: async (share: number) => ({ ended: shares.push(share) }) };
  const local = (maintenance: boolean) => ({ state: { ...EMPTY_LOCAL_STATE, maintenance } });
  await t.rejects(endStreams({ share: 0.5 }, local(false), flow), { code: 'in-traffic' });
  t.strictSame(shares, []);
  t.same(await endStreams({ share: 0.5 }, local(true), flow), { ended: 1 });
  t.strictSame(shares, [0.5]);
});
