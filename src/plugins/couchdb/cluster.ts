/** Decisions about the observed cluster: which nodes agree, which one coordinates, which may have data. Pure. */
import type { CouchDbDesired, DesiredMember, Disagreement } from './desired.ts';
import type { Mark, NodeDocument, Server } from './observed.ts';
import { holdersOf, idOf, revOf, type ShardMap } from './shards.ts';

/** Rule 2; undefined when all agree. */
export function disagreement(desired: CouchDbDesired, server: Server): Disagreement | undefined {
  const bound = boundNodes(desired, server);
  const called = (nodes: readonly string[]): string =>
    nodes.map((node) => calledOf(desired, node)).join(', ');
  const about = (nodes: readonly string[], message: string): Disagreement => ({
    message,
    subjects: nodes.map((node) => calledOf(desired, node)),
  });
  const missing = bound.filter((node) => !server.allNodes.includes(node));
  if (missing.length > 0) return about(missing, `not connected: ${called(missing)}`);
  const own = wordOf(server, server.nodeName);
  if (own === undefined) return about([], 'this node does not answer about itself');
  for (const node of bound) {
    const word = wordOf(server, node);
    if (word === undefined) return about([node], `${called([node])} does not answer`);
    const unseen = bound.filter((other) => !word.connected.includes(other));
    if (unseen.length > 0)
      return about([node, ...unseen], `${called([node])} is not connected to ${called(unseen)}`);
    if (digestOf(word.documents) !== digestOf(own.documents))
      return about([node], `${called([node])} has other node documents`);
  }
  return undefined;
}

/** HOST/ROLE for people; a stranger has only Erlang's name. */
export function calledOf(desired: CouchDbDesired, node: string): string {
  return memberNamed(desired, node)?.name ?? node;
}

/**
 * Members whose agreement counts: all of `cluster_nodes` except those declared gone, and a joiner that never connected
 * (no other node can have its name, and its document has to be deleted).
 */
export function boundNodes(desired: CouchDbDesired, server: Server): string[] {
  return server.clusterNodes.filter((node) => !isGone(desired, node) && !isGhost(desired, server, node));
}

export function isGone(desired: CouchDbDesired, node: string): boolean {
  return memberNamed(desired, node)?.phase === 'removed';
}

/** Rule 4's time-out of a join: the document is there, the node never came, and no map names it. */
const GHOST_AFTER_MS = 30_000;

export function isGhost(desired: CouchDbDesired, server: Server, node: string): boolean {
  if (memberNamed(desired, node)?.phase !== 'in') return false;
  const document = documentOf(server, node);
  if (document === undefined || !isDecom(document) || markOf(document) !== undefined) return false;
  if ((server.absentMs.get(node) ?? 0) < GHOST_AFTER_MS) return false;
  for (const map of server.maps.values()) if (map.by_node[node] !== undefined) return false;
  return true;
}

/** By address in order of admission: a later holder of the same address represents it. */
export function memberNamed(desired: CouchDbDesired, node: string): DesiredMember | undefined {
  return (
    desired.members.find((member) => member.nodeName === node && member.phase !== 'removed') ??
    desired.members.find((member) => member.nodeName === node)
  );
}

function wordOf(server: Server, node: string) {
  return server.members.get(node);
}

function digestOf(documents: readonly NodeDocument[]): string {
  return documents
    .map((document) => `${idOf(document)} ${revOf(document)}`)
    .sort()
    .join('\n');
}

export function documentOf(server: Server, node: string): NodeDocument | undefined {
  return wordOf(server, server.nodeName)?.documents.find((document) => idOf(document) === node);
}

/** CouchDB counts `true` and `"true"`. */
export function isDecom(document: NodeDocument): boolean {
  return document.decom === true || document.decom === 'true';
}

export function markOf(document: NodeDocument): Mark | undefined {
  const { bornemisza: mark } = document;
  return mark === 'filling' || mark === 'filled' || mark === 'leaving' ? mark : undefined;
}

/** Whether a node's copies are still being added: it must stay in maintenance. */
export function isFilling(document: NodeDocument): boolean {
  return markOf(document) === 'filling' || (isDecom(document) && markOf(document) === undefined);
}

/** The member through whose documents all edits go: the first settled one; the first of all while none is settled. */
export function arbiterOf(desired: CouchDbDesired, server: Server): string {
  const bound = boundNodes(desired, server);
  const settled = bound.filter((node) => {
    const document = documentOf(server, node);
    return document !== undefined && !isDecom(document);
  });
  return settled[0] ?? bound[0] ?? server.nodeName;
}

/**
 * The member whose daemon coordinates the cluster: the first settled one with a living daemon, stayers before leavers.
 */
export function coordinatorOf(desired: CouchDbDesired, server: Server): string | undefined {
  const able = boundNodes(desired, server).filter((node) => {
    const document = documentOf(server, node);
    const member = memberNamed(desired, node);
    return member?.alive === true && document !== undefined && !isFilling(document);
  });
  const stays = able.filter((node) => memberNamed(desired, node)?.phase === 'in');
  return stays[0] ?? able[0];
}

/** Members that may hold copies for good. */
export function stayersOf(desired: CouchDbDesired, server: Server): string[] {
  return boundNodes(desired, server).filter((node) => memberNamed(desired, node)?.phase === 'in');
}

/**
 * Whether another node may serve this range: one that is connected and was too slow to answer. A node that opens with
 * unproved copies, because no other one serves them, must know that no other one does.
 */
export function mayBeServedElsewhere(map: ShardMap, range: string, self: string, server: Server): boolean {
  return holdersOf(map, range).some(
    (node) =>
      node !== self && server.allNodes.includes(node) && server.members.get(node)?.maintenance !== true,
  );
}

/** Whether another connected node reports that it serves this range. */
export function servedElsewhere(map: ShardMap, range: string, self: string, server: Server): boolean {
  return holdersOf(map, range).some(
    (node) => node !== self && server.members.get(node)?.maintenance === false,
  );
}
