import { type Command, Option } from 'commander';
import type { CertificateShown, Done, CertificateFacts, StatusAnswer } from '../../daemon/control/api.ts';
import { printDone, printJson } from '../answer.ts';
import { formatDuration, formatInstant } from '../duration.ts';
import { CliFailure, EXIT } from '../failure.ts';
import { appDaemonOf } from '../instances.ts';
import type { Io } from '../io.ts';
import { type Paint, paintFor } from '../paint.ts';
import { ask } from '../setup/ask.ts';
import { renderFacts, renderTable } from '../table.ts';
import { addVerb, type CommonOptions } from '../verb.ts';

/** The daemon waits for some seconds if edges do not answer. */
const TIMEOUT_MS = 20_000;

interface RenewOptions extends CommonOptions {
  readonly force?: boolean;
}

interface RevokeOptions extends CommonOptions {
  readonly reason: string;
  readonly now?: boolean;
  readonly yes?: boolean;
}

/** As RFC 5280 section 5.3.1 names them. */
const REASONS = ['keyCompromise', 'superseded', 'unspecified'] as const;

export function addCertificate(program: Command, io: Io): void {
  const certificate = addVerb(program, 'certificate', {
    summary: 'the public certificate of the site',
    root: false,
  });
  addVerb(certificate, 'show', {
    summary: 'show the certificate, its next order, and what each edge serves',
    description:
      'Shows names, issuer, serial number and end of the certificate that [certificates] ordered, when and ' +
      'why the next one is ordered, the last problem, and what each app node serves now.',
    examples: [
      'bornemisza certificate show',
      "bornemisza certificate show --json | jq -r '.edges[] | [.name, .sha256] | @tsv'",
    ],
    json: true,
  }).action(async (options: CommonOptions) => {
    const answer = await (await appDaemonOf(options)).get<CertificateShown>('/v1/certificate', TIMEOUT_MS);
    if (options.json === true) printJson(io, answer);
    else io.stdout.write(renderCertificate(answer, Date.now(), paintFor(io.stdout), io.stdout.columns));
  });
  addVerb(certificate, 'renew', {
    summary: 'order the next certificate now',
    description:
      'Orders a certificate with a new key now; any app node can be asked. After failed orders it does not wait ' +
      'for the next try: use it when you have repaired what kept the CA from checking a name. Our own limits ' +
      '(one certificate a day, three a week) apply unless you pass --force; the limits of the CA always apply.',
    examples: ['bornemisza certificate renew', 'bornemisza certificate renew --force'],
    json: true,
  })
    .option('--force', 'ignore our own limits for one certificate')
    .action(async (options: RenewOptions) => {
      const daemon = await appDaemonOf(options);
      const force = options.force === true;
      printDone(io, options, await daemon.post<Done>('/v1/certificate/renew', { force }));
    });
  addRevoke(certificate, io);
}

function addRevoke(certificate: Command, io: Io): void {
  addVerb(certificate, 'revoke', {
    summary: 'replace the certificate and its keys, and have the CA revoke it',
    description:
      'For a key that leaked. Makes new keys for the account and the certificate and orders the next one at once; ' +
      'any app node can be asked. When all edges serve the next one, or ten minutes after it came, the CA revokes ' +
      'the present one. With --now it is revoked first: browsers may refuse the site until the next one is there. ' +
      'The limits of orders apply; if they hold the next order, only --now revokes. Find out first how the key ' +
      'leaked: the next one is in the same files. On a terminal you type the name of the site; a script passes ' +
      '--yes.',
    examples: [
      'bornemisza certificate revoke',
      'bornemisza certificate revoke --now --yes',
      'bornemisza certificate revoke --reason superseded',
    ],
    json: true,
  })
    .addOption(
      new Option('--reason <reason>', 'the reason that the CA publishes')
        .choices(REASONS)
        .default('keyCompromise'),
    )
    .option('--now', 'revoke it before there is another one')
    .option('--yes', 'do not ask')
    .action(async (options: RevokeOptions) => {
      const daemon = await appDaemonOf(options);
      const { reason, now = false } = options;
      if (options.yes !== true)
        await mayRevoke(io, await daemon.get<CertificateShown>('/v1/certificate', TIMEOUT_MS));
      printDone(io, options, await daemon.post<Done>('/v1/certificate/revoke', { reason, now }));
    });
}

/** Shows first what will be revoked. A script must pass --yes. */
async function mayRevoke(io: Io, { names, url, current }: CertificateShown): Promise<void> {
  const name = new URL(url).hostname;
  if (io.typed !== undefined) {
    const which = current === undefined ? 'there is none' : `serial ${current.serial}, until ${current.ends}`;
    io.stderr.write(`The certificate for ${names.join(', ')} (${which}) will be revoked for good.\n`);
    if ((await ask(io, `To revoke it, type ${name}: `)) === name) return;
  }
  throw new CliFailure(
    EXIT.usage,
    'certificate-not-confirmed',
    'nothing was revoked',
    io.typed === undefined ? 'without a terminal, pass --yes' : 'run it again and type the name',
  );
}

function renderCertificate(answer: CertificateShown, nowMs: number, paint: Paint, columns: number): string {
  const { current, problem, edges } = answer;
  const rows = edges.map(({ name, sha256 }) => [name, servesWords(sha256, current?.sha256, paint)]);
  return [
    renderFacts(certificateFacts(answer, nowMs), paint),
    rows.length === 0 ? '' : `\n${renderTable(['EDGE', 'SERVES'], rows, { columns, paint })}`,
    problem === undefined
      ? ''
      : `\n${paint('red', '!')} ${problem.message} (${problem.code})\n  ${paint('bold', 'next:')} ${problem.next}\n`,
  ].join('');
}

function certificateFacts(answer: CertificateFacts, nowMs: number): (readonly [string, string])[] {
  const { names, directory, profile, orderer, current, order, failingSince, challenge } = answer;
  const since =
    failingSince === undefined ? '' : `; no order has succeeded since ${formatInstant(failingSince)}`;
  return [
    ['names', names.join(', ')],
    [
      'CA',
      `${profile === undefined ? directory : `${directory}, profile ${profile}`}; checks by ${challenge}`,
    ],
    ...(current === undefined
      ? ([['certificate', 'none yet']] as const)
      : ([
          ['issuer', current.issuer],
          ['serial', current.serial],
          ['SHA-256', current.sha256],
          [
            'issued',
            `${formatInstant(current.from)}, ${formatDuration(nowMs - Date.parse(current.from))} ago`,
          ],
          ['ends', endWords(current, nowMs)],
        ] as const)),
    ...(order === undefined
      ? ([['next', nextWords(answer)]] as const)
      : ([['order', `open since ${formatInstant(order.since)}${waitWords(order.waits)}`]] as const)),
    ['ordered by', `${orderer}${since}`],
  ];
}

function endWords({ ends, revoked }: NonNullable<CertificateFacts['current']>, nowMs: number): string {
  const leftMs = Date.parse(ends) - nowMs;
  const left = leftMs > 0 ? `${formatDuration(leftMs)} left` : `ended ${formatDuration(-leftMs)} ago`;
  return `${formatInstant(ends)}, ${left}${revoked ? '; revoked' : ''}`;
}

function nextWords({ next }: CertificateFacts): string {
  if (next === undefined) return 'none needed';
  const held = next.held === undefined ? '' : `; not before (${next.held})`;
  return `${formatInstant(next.at)}: ${next.why}${held}`;
}

function waitWords(waits: string | undefined): string {
  return waits === undefined ? '' : `; waits: ${waits}`;
}

function servesWords(sha256: string | undefined, wanted: string | undefined, paint: Paint): string {
  if (sha256 === undefined) return paint('red', 'nothing: no TLS at its port');
  if (sha256 === wanted) return paint('green', 'this certificate');
  return paint('yellow', `another certificate, SHA-256 ${sha256}`);
}

/** As the program that orders it reports it; undefined: it is not kept here, or was not checked yet. */
export function certificateIn({ plugins }: Pick<StatusAnswer, 'plugins'>): CertificateFacts | undefined {
  return plugins.find(({ name }) => name === 'certificates')?.facts as CertificateFacts | undefined;
}

/** For `status`: one line. */
export function certificateLine(
  { url: link, current, next, problem }: CertificateFacts,
  nowMs: number,
  paint: Paint,
): string {
  const renewed = next === undefined ? '' : `; next order ${formatInstant(next.at)} (${next.why})`;
  const wrong = problem === undefined ? '' : `; ${paint('red', problem.code)}: bornemisza certificate show`;
  if (current === undefined) return `${link} ${paint('yellow', 'no certificate yet')}${renewed}${wrong}`;
  return `${link} certificate ends ${endWords(current, nowMs)}${renewed}${wrong}`;
}
