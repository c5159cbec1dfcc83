import type { ApiDesired, Owner } from '../plugins/floating/desired.ts';
import { announcementOf, type FloatingMode } from './app.ts';
import type { EffectiveMember, EffectiveView } from './effective.ts';
import { barredFrom, claims, type Holding, holdingOf, isReady, SERVER_TAG } from './holder.ts';
import type { AppSituation, Announcement } from './situation.ts';

/**
 * Which node has the floating IPs assigned, if the provider moves them by its API. The decision is that of mode
 * `layer2`. This file adds from whom they may be taken, and which node checks whether they answer.
 */

/** In a record: a node found that the addresses do not answer although they are assigned. */
const UNMOVED = 'floating-unmoved';

interface ApiRoleConfig {
  readonly mode: FloatingMode;
  readonly addresses: readonly string[];
  /** The device for the assigned addresses; empty if the provider's own address carries them. */
  readonly device: string;
}

/** @param decided by `floatingDecision`; undefined if there is nothing to decide */
export function floatingOf(
  view: EffectiveView,
  local: AppSituation,
  decided: Holding | undefined,
  { mode, addresses, device }: ApiRoleConfig,
): ApiDesired {
  if (mode !== 'api' || decided === undefined) {
    const why = `floating.mode is "${mode}"`;
    const nothing = { addresses: [], device: '', take: false, ask: undefined, others: [], silentTo: [] };
    return { ...nothing, barred: why, why };
  }
  const apps = view.members.filter(({ self, record }) => !self && record.role === 'app');
  const own = announcementOf({
    view,
    local: { ...local, edge: local.edge === 'answers' ? 'answers' : 'fails' },
  });
  return {
    addresses,
    device,
    take: decided.announce,
    barred: barredFrom({ view, local }, own),
    ask: decided.announce ? 'doubt' : askedBeforehand(view, local, own),
    others: apps.map((member) => ownerOf(member, decided)),
    silentTo: apps
      .filter(({ state, record }) => state === 'alive' && wordsOf(record).includes(UNMOVED))
      .map(({ record }) => record.name),
    why: decided.why,
  };
}

/** The node that would take them if their holder were dead checks them beforehand. */
function askedBeforehand(view: EffectiveView, local: AppSituation, own: Announcement): ApiDesired['ask'] {
  const holders = view.members.filter((each) => !each.self && claims(each));
  if (local.holds || holders.length === 0) return undefined;
  const members = view.members.map((each) =>
    holders.includes(each) ? { ...each, state: 'dead' as const } : each,
  );
  if (!holdingOf({ view: { ...view, members }, local }, own, isReady).announce) return undefined;
  return holders.some(({ state }) => state !== 'alive') ? 'doubt' : 'watch';
}

function ownerOf(member: EffectiveMember, { announce }: Holding): Owner {
  const { record, state } = member;
  const [id] = wordsOf(record);
  const rival = announce && state === 'alive' && claims(member);
  const from = givesUp(member) ? 'given' : state === 'dead' ? 'unheard' : rival ? 'rival' : 'never';
  return { name: record.name, id, from };
}

/** Its own report, however old, since an unchanged record is not sent again. */
function givesUp({ record, state }: EffectiveMember): boolean {
  const { maintenance, goodbye, health, services } = record;
  return (
    state === 'left' ||
    state === 'leaving' ||
    maintenance ||
    (goodbye !== undefined && goodbye.kind !== 'restart') ||
    health === 'down' ||
    services.some((each) => each.name === 'haproxy' && each.health === 'down')
  );
}

function wordsOf({ tags }: EffectiveMember['record']): string[] {
  return (tags[SERVER_TAG] ?? '').split(' ').filter((each) => each !== '');
}

/** If the only node that can have the floating IPs moved dies, they stay with it. */
export function floatingWarnings({ members }: Pick<EffectiveView, 'members'>): {
  readonly code: string;
  readonly message: string;
  readonly next: string;
}[] {
  const present = members.filter(({ state, record }) => state !== 'left' && record.role === 'app');
  const [ready, ...more] = present.filter(isReady);
  if (ready === undefined || more.length > 0 || present.length === 1) return [];
  return [
    {
      code: 'one-floating-caller',
      message: `only ${ready.record.name} can have the floating IPs assigned to it; if it dies, they stay there`,
      next: 'put the token on a second app node: `bornemisza status` there shows what is missing',
    },
  ];
}
