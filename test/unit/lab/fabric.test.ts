import t from 'tap';
import { faultRules, type PortFaults } from '../../lab/fabric.ts';

const well: PortFaults = {
  cut: undefined,
  cutFrom: new Map(),
  dropPercent: 0,
  unplugged: false,
  delay: undefined,
};
const rulesOf = (faults: Partial<PortFaults>): string[] =>
  faultRules(new Map([['p0', { ...well, ...faults }]]))
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line.endsWith('drop'));

const cases: readonly (readonly [string, Partial<PortFaults>, readonly string[]])[] = [
  ['nothing', {}, []],
  ['frames from the host', { cut: 'out' }, ['iifname "p0" drop']],
  ['frames to the host', { cut: 'in' }, ['oifname "p0" drop']],
  ['both', { cut: 'both' }, ['iifname "p0" drop', 'oifname "p0" drop']],
  [
    'frames to one peer',
    { cutFrom: new Map([['p1', 'out']]) },
    ['iifname { "p0", "o-p0" } oifname { "p1", "o-p1" } drop'],
  ],
  [
    'frames from one peer',
    { cutFrom: new Map([['p1', 'in']]) },
    ['iifname { "p1", "o-p1" } oifname { "p0", "o-p0" } drop'],
  ],
  [
    'a share',
    { dropPercent: 12.5 },
    ['iifname "p0" numgen random mod 1000 < 125 drop', 'oifname "p0" numgen random mod 1000 < 125 drop'],
  ],
];

t.test('each fault is the rules that lose its frames', async (t) => {
  for (const [what, faults, rules] of cases) t.strictSame(rulesOf(faults), rules, what);
});

t.test('the file replaces all earlier faults', async (t) => {
  const text = faultRules(new Map());
  t.ok(text.indexOf('delete table bridge faults') < text.indexOf('chain forward'));
});
