import type { AuditTrail } from '../audit/trail.ts';
import type { Clock } from '../clock.ts';
import { hasNextStep } from '../errors.ts';
import { adoptCertificate, type Identity } from './identity.ts';
import type { Log } from '../process/log.ts';
import { type ExchangeDependencies, renewCertificate } from './exchange.ts';
import { storageNext } from './storage.ts';

const RENEWAL_LOOK_MS = 3_600_000;
/**
 * With an expired certificate, peers' HAProxies refuse this node: after a long absence it asks until it has a new one.
 */
const EXPIRED_LOOK_MS = 3000;
/** One that is not valid yet is refused as well; then this machine's clock can be wrong. */
const NOT_BEGUN_LOOK_MS = 30_000;

interface OwnCertificateDependencies<Shown> {
  readonly clock: Clock;
  readonly log: Log;
  readonly audit: Pick<AuditTrail, 'append'>;
  readonly exchange: ExchangeDependencies;
  readonly node: { turn(reason: string): void };
  /** Presents the present chain to peers. */
  readonly show: () => void;
  /** Reads the programs' files from the disk. @throws with code and next step */
  readonly read: () => Promise<Shown>;
}

/**
 * Manages the certificate that this node presents: renewed in time, signed again if needed, and the same in all
 * programs.
 */
export class OwnCertificate<Shown> {
  readonly #identity: Identity;
  readonly #dependencies: OwnCertificateDependencies<Shown>;
  #lookedMs = Number.NEGATIVE_INFINITY;
  #shown: Shown | undefined;

  constructor(identity: Identity, dependencies: OwnCertificateDependencies<Shown>) {
    this.#identity = identity;
    this.#dependencies = dependencies;
  }

  /** The certificates that the programs present and trust; undefined until {@link read}. */
  get shown(): Shown | undefined {
    return this.#shown;
  }

  /** Once a second; requests a renewal when it is due. */
  look(): void {
    const { clock } = this.#dependencies;
    if (clock.monotonicMs() - this.#lookedMs > this.#everyMs(clock.wallMs())) void this.#renew();
  }

  #everyMs(wallMs: number): number {
    const { notBeforeMs, notAfterMs } = this.#identity.certificate;
    if (wallMs > notAfterMs) return EXPIRED_LOOK_MS;
    return wallMs < notBeforeMs ? NOT_BEGUN_LOOK_MS : RENEWAL_LOOK_MS;
  }

  /** Its authority was removed and another one signed it again, or it had been signed too early. */
  async takeSignedAnew(): Promise<void> {
    const early = this.#dependencies.clock.wallMs() < this.#identity.certificate.notBeforeMs;
    try {
      if (await adoptCertificate(this.#identity))
        await this.changed(this.#renewedWords(), early ? 'it had not begun' : 'its authority was removed');
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
    const { node, log, read } = this.#dependencies;
    try {
      this.#shown = await read();
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
    await this.changed(this.#renewedWords(), 'half of its lifetime is over');
  }

  #renewedWords(): string {
    const ends = new Date(this.#identity.certificate.notAfterMs).toISOString().slice(0, 10);
    return `the certificate was renewed until ${ends}`;
  }
}
