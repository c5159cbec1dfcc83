import type { LocalFacts, NodeRecord } from '../membership/types.ts';
import {
  MAX_GOODBYE_WINDOW_MS,
  MAX_LOAD,
  MAX_NAME_LENGTH,
  MAX_SERVICES,
  MAX_SERVICE_NAME_LENGTH,
  MAX_TAGS,
  MAX_TAG_BYTES,
  MAX_VERSION_LENGTH,
} from './limits.ts';

const LABEL = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?';
const NAME = new RegExp(`^${LABEL}(?:\\.${LABEL})*/(?:app|db)$`);
/** base58btc of the identity multihash of an Ed25519 public key: always 52 characters with this prefix. */
const PEER_ID = /^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$/;
const OCTET = '(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])';
const IPV4 = new RegExp(`^${OCTET}(?:\\.${OCTET}){3}$`);
const SERVICE_NAME = /^[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?$/;
const TAG_KEY = /^[a-z0-9](?:[a-z0-9._/-]*[a-z0-9])?$/;
/**
 * Control characters, line and paragraph separators and bidirectional marks would let a tag rewrite an operator's
 * terminal.
 */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u;
const VERSION = /^[0-9A-Za-z][0-9A-Za-z.+-]*$/;
const START_ID = /^[0-9a-f]{32}$/;
const SETTINGS_DIGEST = /^(?:[0-9a-f]{16})?$/;

export function isPeerId(text: string): boolean {
  return PEER_ID.test(text);
}

/** A whole number that survives JSON, comparison and addition. */
export function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

/** The problem of a record's values, or undefined. It does not check the signature. */
export function recordProblem(record: NodeRecord): string | undefined {
  if (!isPeerId(record.peerId)) return 'peerId is not an Ed25519 PeerId';
  if (record.name.length > MAX_NAME_LENGTH || !NAME.test(record.name)) return 'name is not HOST/ROLE';
  if (!record.name.endsWith(`/${record.role}`)) return 'name and role differ';
  if (!IPV4.test(record.address)) return 'address is not IPv4';
  if (!isCount(record.port) || record.port < 1 || record.port > 65_535) return 'port is not 1 to 65535';
  if (!isCount(record.incarnation)) return 'incarnation is not a safe integer';
  if (!isCount(record.sequence)) return 'sequence is not a safe integer';
  if (!START_ID.test(record.startId)) return 'startId is not 16 bytes in hex';
  if (record.version.length > MAX_VERSION_LENGTH || !VERSION.test(record.version))
    return 'version is not a version';
  if (!isCount(record.protocolMin) || record.protocolMin > record.protocolMax)
    return 'protocol range is empty';
  if (!isCount(record.protocolMax) || record.protocolMax > 0xffff)
    return 'protocolMax is not a 16 bit number';
  return goodbyeProblem(record) ?? factsProblem(record);
}

function goodbyeProblem({ goodbye }: NodeRecord): string | undefined {
  if (goodbye === undefined) return undefined;
  if (!isCount(goodbye.windowMs) || goodbye.windowMs > MAX_GOODBYE_WINDOW_MS)
    return 'goodbye window is out of range';
  return undefined;
}

/**
 * The problem of the fields that a daemon sets about itself, or undefined. Peers refuse a record with such a problem.
 */
export function factsProblem(facts: LocalFacts): string | undefined {
  if (!isCount(facts.load) || facts.load > MAX_LOAD) return 'load is out of range';
  if (!SETTINGS_DIGEST.test(facts.settingsDigest)) return 'settingsDigest is not 8 bytes in hex';
  return servicesProblem(facts.services) ?? tagsProblem(facts.tags);
}

function servicesProblem(services: LocalFacts['services']): string | undefined {
  if (services.length > MAX_SERVICES) return `more than ${MAX_SERVICES} services`;
  const seen = new Set<string>();
  for (const { name } of services) {
    if (name.length > MAX_SERVICE_NAME_LENGTH || !SERVICE_NAME.test(name)) return 'a service has a bad name';
    if (seen.has(name)) return 'two services share a name';
    seen.add(name);
  }
  return undefined;
}

function tagsProblem(tags: LocalFacts['tags']): string | undefined {
  const pairs = Object.entries(tags);
  if (pairs.length > MAX_TAGS) return `more than ${MAX_TAGS} tags`;
  for (const [key, value] of pairs) {
    if (key.length > MAX_TAG_BYTES || !TAG_KEY.test(key)) return 'a tag has a bad key';
    if (utf8Length(value) > MAX_TAG_BYTES) return `a tag is longer than ${MAX_TAG_BYTES} bytes`;
    if (UNPRINTABLE.test(value)) return 'a tag holds unprintable characters';
  }
  return undefined;
}

function utf8Length(text: string): number {
  let bytes = 0;
  for (const character of text) {
    const code = character.codePointAt(0) ?? 0;
    bytes += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x1_0000 ? 3 : 4;
  }
  return bytes;
}
