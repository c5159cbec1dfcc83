import { readIfPresent } from '../../host/files.ts';
import { PluginError } from '../../plugins/contract.ts';
import { isFinding, readSite } from '../../plugins/haproxy/site-certificate.ts';
import type { AuditTrail } from '../audit/trail.ts';
import type { Clock } from '../clock.ts';
import type { Config } from '../config/config.ts';
import { hasNextStep } from '../errors.ts';
import { adoptCertificate, type Identity } from '../identity/identity.ts';
import type { Log } from '../process/log.ts';
import type { CurrentNode } from './current.ts';
import { type ExchangeDependencies, renewCertificate } from '../identity/exchange.ts';
import type { ShownCertificates } from './look.ts';
import { storageNext } from '../identity/storage.ts';

const RENEWAL_LOOK_MS = 3_600_000;
/**
 * With a certificate that ended, peers' HAProxies turn this node away: whoever comes back after long asks until it has
 * one.
 */
const EXPIRED_LOOK_MS = 3000;

export interface OwnCertificateDependencies {
  readonly clock: Clock;
  readonly log: Log;
  readonly audit: Pick<AuditTrail, 'append'>;
  readonly exchange: ExchangeDependencies;
  readonly node: Pick<CurrentNode, 'config' | 'turn'>;
  /** Shows peers the chain of now. */
  readonly show: () => void;
}

/**
 * Keeps the certificate that this node shows: renewed in time, signed anew when need be, and the same in all programs.
 */
export class OwnCertificate {
  readonly #identity: Identity;
  readonly #dependencies: OwnCertificateDependencies;
  #lookedMs = Number.NEGATIVE_INFINITY;
  #shown: ShownCertificates | undefined;

  constructor(identity: Identity, dependencies: OwnCertificateDependencies) {
    this.#identity = identity;
    this.#dependencies = dependencies;
  }

  /** What the programs show and trust; undefined until {@link read}. */
  get shown(): ShownCertificates | undefined {
    return this.#shown;
  }

  /** Once a second; asks for a renewal when it is time to. */
  look(): void {
    const { clock } = this.#dependencies;
    const ended = clock.wallMs() > this.#identity.certificate.notAfterMs;
    if (clock.monotonicMs() - this.#lookedMs > (ended ? EXPIRED_LOOK_MS : RENEWAL_LOOK_MS))
      void this.#renew();
  }

  /** The authority that had signed it was removed; another one signed it anew. */
  async takeSignedAnew(): Promise<void> {
    try {
      if (await adoptCertificate(this.#identity))
        await this.changed(this.#renewedWords(), 'its authority was removed');
    } catch (error) {
      const next = `${storageNext(error)}; it is tried again at the next start`;
      this.#dependencies.log.error({ err: error, next }, 'this node’s new certificate cannot be kept');
    }
  }

  async changed(summary: string, why: string): Promise<void> {
    const { show, audit } = this.#dependencies;
    show();
    audit.append({ kind: 'daemon', summary, trigger: why, subjects: [this.#identity.name], result: 'ok' });
    await this.read();
  }

  /**
   * Gives the programs what is on the disk: at the start, after a renewal, and with each reload. A certificate that
   * cannot be read leaves the former one in use.
   */
  async read(): Promise<void> {
    const { node, log } = this.#dependencies;
    try {
      this.#shown = await shownBy(this.#identity, node.config);
      node.turn('certificates changed');
    } catch (error) {
      if (!hasNextStep(error)) throw error;
      log.error({ code: error.code, next: error.next }, error.message);
    }
  }

  async #renew(): Promise<void> {
    const { clock, exchange, log } = this.#dependencies;
    this.#lookedMs = clock.monotonicMs();
    try {
      if (!(await renewCertificate(exchange))) return;
    } catch (error) {
      log.warn(
        { err: error, next: 'it is tried again within the hour' },
        'renewing this node’s certificate failed',
      );
      return;
    }
    await this.changed(this.#renewedWords(), 'half of its life is over');
  }

  #renewedWords(): string {
    const ends = new Date(this.#identity.certificate.notAfterMs).toISOString().slice(0, 10);
    return `the certificate was renewed until ${ends}`;
  }
}

async function shownBy(identity: Identity, config: Config): Promise<ShownCertificates> {
  const file = config.role === 'app' ? config.edge.certificate : undefined;
  const key = await identity.tlsKeyPem();
  const site = file === undefined ? { edge: undefined } : await readEdgeCertificate(file);
  const siteEndMs = site.edge === undefined ? undefined : endOf(site.edge);
  return { chain: identity.chainPem.trim(), key, ca: identity.rootsPem, ...site, siteEndMs };
}

/** The plugin judges the file; a certificate that is refused is not watched. */
function endOf(pem: string): number | undefined {
  const site = readSite(pem);
  return isFinding(site) ? undefined : site.untilMs;
}

/** A file that cannot be read is one optional input: it stops nothing else, and `status` says so. */
async function readEdgeCertificate(file: string): Promise<Pick<ShownCertificates, 'edge' | 'edgeProblem'>> {
  try {
    const edge = await readIfPresent(file);
    if (edge !== undefined) return { edge };
    return { edge: undefined, edgeProblem: unreadable(file, 'there is no such file') };
  } catch (error) {
    const why = error instanceof PluginError ? error.message : String(error);
    return { edge: undefined, edgeProblem: unreadable(file, why) };
  }
}

function unreadable(file: string, why: string): NonNullable<ShownCertificates['edgeProblem']> {
  return {
    code: 'edge-certificate',
    message: `cannot read the site’s certificate file ${file}: ${why}`,
    next:
      `make it readable for the daemon: chgrp bornemisza ${file} && chmod 640 ${file}, then \`systemctl ` +
      'reload bornemisza@app`',
  };
}
