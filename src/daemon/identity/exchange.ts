import type { Log } from '../process/log.ts';
import { answerRenewal, acceptRenewal, type Identity, renewalRequest } from './identity.ts';
import { renewalDue } from './keys/chain.ts';
import { answerSecretsRequest, decodeSecrets, encodeSecrets } from './secrets.ts';
import type { PeerId } from '../membership/types.ts';
import type { Transport } from '../transport/transport.ts';

/** The requests between daemons besides membership. Each is one request and one bounded answer. */
const SECRETS_PROTOCOL = '/bornemisza/secrets/1';
const RENEWAL_PROTOCOL = '/bornemisza/renewal/1';
const LIMITS = { timeoutMs: 5000, maxBytes: 32 * 1024 };

export interface ExchangeDependencies {
  readonly identity: Identity;
  readonly transport: Transport;
  readonly log: Log;
  readonly wallMs: () => number;
}

/** Answers members: role secrets if their certificate allows it, renewals if this node is an authority. */
export function serveExchange({ identity, transport, wallMs }: ExchangeDependencies): void {
  transport.handle(SECRETS_PROTOCOL, (from) => {
    const asker = identity.roster.get(from);
    const secrets = asker === undefined ? undefined : answerSecretsRequest(asker, identity.secrets.get());
    return secrets === undefined ? new Uint8Array(0) : encodeSecrets(secrets);
  });
  transport.handle(RENEWAL_PROTOCOL, (from, request) => answerRenewal(identity, from, request, wallMs()));
}

/**
 * Asks the connected db nodes, or those in `peers`, one after another, for the secrets of this node's role.
 *
 * @returns whether something new was stored
 */
export async function fetchSecrets(
  { identity, transport, log }: ExchangeDependencies,
  peers = transport.peers(),
): Promise<boolean> {
  for (const peer of peers) {
    if (identity.roster.get(peer)?.role !== 'db') continue;
    try {
      const bytes = await transport.request(peer, SECRETS_PROTOCOL, new Uint8Array(0), LIMITS);
      if (bytes.length > 0 && (await identity.secrets.put(decodeSecrets(bytes)))) return true;
    } catch (error) {
      log.debug({ err: error, peer }, 'asking a db node for this role’s secrets failed');
    }
  }
  return false;
}

/**
 * Renews this node's certificate at half of its life, at any connected authority.
 *
 * @returns whether there is a new certificate
 */
export async function renewCertificate({
  identity,
  transport,
  log,
  wallMs,
}: ExchangeDependencies): Promise<boolean> {
  if (!renewalDue(identity.certificate, wallMs())) return false;
  const authorities = identity.roster.authorities();
  const asked: PeerId[] = transport.peers().filter((peer) => authorities.includes(peer));
  const request = await renewalRequest(identity);
  if (identity.authority !== undefined) {
    await acceptRenewal(
      identity,
      await answerRenewal(identity, identity.peerId, request, wallMs()),
      wallMs(),
    );
    return true;
  }
  for (const peer of asked) {
    try {
      const answer = await transport.request(peer, RENEWAL_PROTOCOL, request, LIMITS);
      await acceptRenewal(identity, answer, wallMs());
      return true;
    } catch (error) {
      log.warn(
        {
          err: error,
          authority: identity.roster.get(peer)?.name,
          next: 'wait: it is tried again within the hour',
        },
        'renewing this node’s certificate failed',
      );
    }
  }
  return false;
}
