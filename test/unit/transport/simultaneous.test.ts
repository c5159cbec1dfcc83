import t from 'tap';
import { decide, type Standing } from '../../../src/daemon/transport/simultaneous.ts';

const SMALL = 'peer-1';
const LARGE = 'peer-2';

function standing(part: Partial<Standing>): Standing {
  return { self: LARGE, peer: SMALL, instance: 'mine', link: undefined, ownDial: undefined, ...part };
}
const hello = { instance: 'theirs', dial: 5, seen: 0, seenInstance: '' };
const ours = { instance: 'theirs', dialledBy: 'self' as const, dial: 3 };
const theirs = { instance: 'theirs', dialledBy: 'peer' as const, dial: 4 };

t.test('each way in which dials can meet has its one answer', async (t) => {
  const table: [string, Standing, Partial<typeof hello>, ReturnType<typeof decide>][] = [
    ['nobody else', standing({}), {}, 'take'],
    ['crossed hellos, peer smaller', standing({ ownDial: 3 }), {}, 'take'],
    ['crossed hellos, self smaller', standing({ self: SMALL, peer: LARGE, ownDial: 3 }), {}, 'duplicate'],
    [
      'our hello was received before the peer dialled',
      standing({ self: SMALL, peer: LARGE, ownDial: 3 }),
      { seen: 3, seenInstance: 'mine' },
      'take',
    ],
    ['our link and a crossed dial, peer smaller', standing({ link: ours }), {}, 'swap'],
    [
      'our link and a crossed dial, self smaller',
      standing({ self: SMALL, peer: LARGE, link: ours }),
      {},
      'duplicate',
    ],
    [
      'the peer knew our link and has lost it',
      standing({ link: ours }),
      { seen: 3, seenInstance: 'mine' },
      'renew',
    ],
    [
      'what it saw was of an earlier start of ours',
      standing({ self: SMALL, peer: LARGE, link: ours }),
      { seen: 99, seenInstance: 'before' },
      'duplicate',
    ],
    ['the peer dials again', standing({ link: theirs }), {}, 'renew'],
    ['an old dial comes late', standing({ link: theirs }), { dial: 3 }, 'duplicate'],
    [
      'the peer has restarted',
      standing({ self: SMALL, peer: LARGE, link: ours }),
      { instance: 'new', dial: 1 },
      'renew',
    ],
  ];
  for (const [what, known, change, expected] of table)
    t.equal(decide(known, { ...hello, ...change }), expected, what);
});

t.test('two who dial at once never both keep, and never both drop', async (t) => {
  const small = decide(standing({ self: SMALL, peer: LARGE, ownDial: 1 }), { ...hello, dial: 1 });
  const large = decide(standing({ self: LARGE, peer: SMALL, ownDial: 1 }), { ...hello, dial: 1 });
  t.same([small, large], ['duplicate', 'take'], 'the dial of the smaller PeerId is the link');
});
