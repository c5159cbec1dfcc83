import t from 'tap';
import { ipFailed } from '../../../src/host/ip.ts';
import type { Layer2Desired } from '../../../src/plugins/layer2/desired.ts';
import {
  type HeldAddress,
  labelOf,
  parseAddresses,
  planLayer2,
  wordOf,
} from '../../../src/plugins/layer2/plan.ts';

const desired: Layer2Desired = {
  device: 'eth0',
  addresses: ['203.0.113.11', '203.0.113.10'],
  hold: true,
  rivals: [],
  why: 'first in line',
};
const word = wordOf(desired);
const own: HeldAddress = { device: 'eth0', address: '198.51.100.11/24', ours: false };
const held = (number: number, device = 'eth0'): HeldAddress => ({
  device,
  address: `203.0.113.${number}/32`,
  ours: true,
});
const byHand: HeldAddress = { device: 'eth0', address: '203.0.113.10/24', ours: false };

t.test('the difference between what should be held and what is', async (t) => {
  const given = { ...desired, hold: false };
  const otherMode = { ...given, device: '', addresses: [], why: 'floating.mode is "bgp"' };
  const rival = { ...desired, rivals: ['app3/app'] };
  const cases: [string, Layer2Desired, readonly HeldAddress[], string | undefined, string[]][] = [
    ['nothing is to be done', desired, [own, held(10), held(11)], word, []],
    [
      'nothing is held yet',
      desired,
      [own],
      undefined,
      ['take 203.0.113.10', 'take 203.0.113.11', 'tell 203.0.113.10,203.0.113.11'],
    ],
    [
      'one was taken off by hand',
      desired,
      [own, held(10)],
      word,
      ['take 203.0.113.11', 'tell 203.0.113.10,203.0.113.11'],
    ],
    [
      'a daemon that has just started',
      desired,
      [held(10), held(11)],
      undefined,
      ['tell 203.0.113.10,203.0.113.11'],
    ],
    ['another one claims it', rival, [held(10), held(11)], word, ['tell 203.0.113.10,203.0.113.11']],
    ['and lets go', desired, [held(10), held(11)], wordOf(rival), ['tell 203.0.113.10,203.0.113.11']],
    [
      'it is given up',
      given,
      [own, held(10), held(11)],
      word,
      ['give-up 203.0.113.10/32', 'give-up 203.0.113.11/32'],
    ],
    ['one that was put there by hand goes as well', given, [own, byHand], word, ['give-up 203.0.113.10/24']],
    ['it is on nobody’s device', given, [own], undefined, []],
    [
      'one of ours that is not configured any more',
      desired,
      [own, held(10), held(11), held(12)],
      word,
      ['give-up 203.0.113.12/32'],
    ],
    ['also where nothing is held', given, [own, held(12)], undefined, ['give-up 203.0.113.12/32']],
    [
      'one of ours on the device of a former configuration',
      desired,
      [own, held(10), held(11), held(10, 'eth1')],
      word,
      ['give-up 203.0.113.10/32 on eth1'],
    ],
    [
      'what the founder put on another device is none of ours',
      given,
      [{ ...byHand, device: 'bm-float' }],
      undefined,
      [],
    ],
    ['in another mode ours go', otherMode, [own, held(10), byHand], undefined, ['give-up 203.0.113.10/32']],
  ];
  for (const [what, wanted, addresses, told, expected] of cases) {
    const changes = planLayer2(wanted, { addresses, told });
    t.same(
      changes.map(
        (change) =>
          `${change.kind} ${change.kind === 'tell' ? change.addresses.join() : change.address}` +
          (change.device === 'eth0' ? '' : ` on ${change.device}`),
      ),
      expected,
      what,
    );
  }
});

t.test('our label marks our addresses, and is never longer than the kernel allows', async (t) => {
  t.equal(labelOf('enp1s0f0np0xyz'), 'enp1s0f0np0x:bm');
  const json = JSON.stringify([
    {
      ifname: 'eth0',
      addr_info: [
        { family: 'inet', local: '198.51.100.11', prefixlen: 24, label: 'eth0' },
        { family: 'inet', local: '203.0.113.10', prefixlen: 32, label: 'eth0:bm' },
        { family: 'inet6', local: 'fe80::1', prefixlen: 64 },
      ],
    },
  ]);
  t.same(parseAddresses(json), [own, held(10)]);
  t.same(parseAddresses(''), []);
});

t.test('what ip refuses is a missing right, or a fault of the device', async (t) => {
  t.match(ipFailed('add 192.0.2.7/32 to eth0', 'RTNETLINK answers: Operation not permitted\n'), {
    code: 'floating-device-not-permitted',
    message: 'cannot add 192.0.2.7/32 to eth0: RTNETLINK answers: Operation not permitted',
    next: /CAP_NET_ADMIN/,
    outcome: 'retry',
  });
  t.match(ipFailed('add 192.0.2.7/32 to eth0', 'Cannot find device "eth0"'), {
    code: 'floating-device-failed',
    message: 'cannot add 192.0.2.7/32 to eth0: Cannot find device "eth0"',
    next: /`ip link` and `bornemisza doctor`/,
  });
});
