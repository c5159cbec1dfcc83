import type { DnsSet } from '../../src/plugins/dns/desired.ts';

/**
 * What a cluster wants of its zone while its nodes come and go, without end: the same for each kind of server. The
 * founder has a record of his own at `mail`.
 *
 * @param seed the same one gives the same wishes
 */
export function* wishes(zone: string, seed: number): Generator<readonly DnsSet[]> {
  let state = seed;
  const random = (below: number): number => (state = (state * 1103515245 + 12345) % 2147483648) % below;
  const some = (most: number): string[] => [
    ...new Set(Array.from({ length: random(most + 1) }, () => `192.0.2.${random(9) + 1}`)),
  ];
  const set = (name: string, more: Pick<DnsSet, 'values'> & Partial<DnsSet>): DnsSet => ({
    ...{ name: name === '' ? zone : `${name}.${zone}`, type: 'A', ttlS: 60, guard: 'serves' },
    ...more,
  });
  for (;;) {
    const hosts = [1, 2, 3].filter(() => random(3) > 0);
    yield [
      set('', { values: some(3) }),
      set('mail', { values: some(2) }),
      ...hosts.map((host) => set(`app${host}`, { values: [`192.0.2.${host}`] })),
      ...hosts.map((host) => set(`internal.app${host}`, { values: [`10.0.0.${host}`], guard: 'finds' })),
      set('_app._tcp', {
        ...{ type: 'SRV', guard: 'finds' },
        values: hosts.map((host) => `1 0 4101 internal.app${host}.${zone}`),
      }),
    ];
  }
}
