import type { Upstream } from './bird-text.ts';

/** The provider's side of BGP as its public documentation gives it. Undefined: the documentation does not say. */
interface BgpPreset extends Pick<Upstream, 'neighbors' | 'neighborAs' | 'multihop'> {
  /** The same for all customers; undefined: each has one of their own. */
  readonly localAs?: number;
  /** Whether the provider offers BFD. None of these documents does. */
  readonly bfd: boolean;
}

/** Read on the sites of the providers, never tried with them: no test reaches one. */
const BGP_PRESETS = {
  // https://docs.vultr.com/high-availability-on-vultr-with-floating-ip-and-bgp, "Vultr's Side of the BGP Session";
  // multihop from its bird.conf. Says nothing of hold time and BFD. It also asks for `graceful restart on`, which
  // would keep the routes of a dead edge: each side decides for itself (RFC 4724). IPv6 has a session of its own; its
  // neighbour is from public bird.conf of customers, with the same AS number and hops. None of bare metal was found.
  vultr: {
    neighbors: ['169.254.169.254', '2001:19f0:ffff::1'],
    neighborAs: 64515,
    multihop: 2,
    bfd: false,
  },
  'vultr-bare-metal': { neighbors: ['169.254.1.1'], neighborAs: 20473, multihop: 2, bfd: false },
  // https://docs.ingenuitycloudservices.com/metal/advanced/bgp, "BGP Peers": a pair of route servers, multihop, one AS
  // number for all customers with secondary addresses. It does not number the hops: BIRD's own default is 64. Says
  // nothing of hold time and BFD.
  ingenuity: {
    neighbors: ['100.64.64.64', '100.64.64.65'],
    neighborAs: 65000,
    multihop: 64,
    localAs: 65100,
    bfd: false,
  },
} as const satisfies Readonly<Record<string, BgpPreset>>;

export type BgpProvider = keyof typeof BGP_PRESETS;

export const BGP_PROVIDERS = Object.keys(BGP_PRESETS) as BgpProvider[];

export const presetOf = (provider: BgpProvider | undefined): BgpPreset | undefined =>
  provider === undefined ? undefined : BGP_PRESETS[provider];
