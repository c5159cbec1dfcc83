import t from 'tap';
import { tell } from '../../demo/story.ts';
import type { Picture, World } from '../../demo/world.ts';
import { slowness } from '../../support/patience.ts';
import { MEMBERS } from '../cli/fake-daemon.ts';

const DEADLINE_MS = 600;
/** More looks than one deadline has room for, on a machine as busy as this one: a look is made each half second. */
const needed = (): number => Math.ceil((DEADLINE_MS * slowness()) / 500) + 1;

/** Each look shows one member more, up to so many. */
function growing(most: number): World {
  let looks = 0;
  const picture = {
    members: MEMBERS,
    servers: new Map(),
    couch: new Map(),
    events: [],
  } as unknown as Picture;
  return {
    routed: false,
    look: async () => {
      looks = Math.min(most, looks + 1);
      return { ...picture, members: Array.from({ length: looks }, () => MEMBERS[0]) } as Picture;
    },
  } as World;
}

const step = (wanted: number) => ({
  title: 'all come',
  act: async () => undefined,
  expect: () => [
    {
      where: 'members' as const,
      missing: ({ members }: Picture) =>
        members.length < wanted ? `${members.length} of ${wanted} members` : undefined,
    },
  ],
  deadlineMs: DEADLINE_MS,
});

t.test('a step that is late and still moves is waited for, and its time is the real one', async (t) => {
  const wanted = needed();
  const startMs = performance.now();
  const result = await tell(step(wanted), growing(wanted), () => undefined);
  t.match(result, { ok: true, failure: undefined });
  const tookS = (performance.now() - startMs) / 1000;
  t.ok(tookS > DEADLINE_MS / 1000, `after ${tookS.toFixed(1)} s`);
  t.ok(Math.abs((result.seen.members ?? 0) - tookS) < 1, `${result.seen.members} s`);
});

t.test('a step in which nothing moves ends at its deadline, with what is missing', async (t) => {
  const result = await tell(step(2), growing(1), () => undefined);
  t.match(result, { ok: false, seen: {}, failure: /^not within 600 ms: all come; last: .*1 of 2 members/ });
});
