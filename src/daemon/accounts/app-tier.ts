import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { type IncomingMessage, request } from 'node:http';
import * as z from 'zod';
import { OperatorError } from '../errors.ts';
import { oneLine } from '../process/log.ts';

/** A deletion makes up to four requests to the databases, and each can take 15 s. */
const TIMEOUT_MS = 60_000;
/** A page of 200 accounts with the longest addresses is 70 kB. */
const MAX_ANSWER_BYTES = 256 * 1024;
const UNIT = 'bornemisza-app';
/** open(2): the file itself, neither read nor written. Linux on x86 and ARM; Node.js does not name it. */
const O_PATH = 0o10000000;

/** The answer of the app tier is validated by this: the app tier has fewer rights than the daemon. */
const listed = {
  email: z.string().max(254),
  account: z.string().regex(/^a[a-z2-7]{32}$/),
  disabled: z.boolean(),
};
export const ANSWERS = {
  list: z.object({ accounts: z.array(z.object(listed)).max(1000), next: z.string().max(200).optional() }),
  show: z.object({
    ...listed,
    database: z.string().max(238),
    usedBytes: z.number().nonnegative().nullable(),
    quotaBytes: z.number().nonnegative(),
  }),
  change: z.object({ ...listed, changed: z.boolean() }),
};
const Refused = z.object({
  error: z.object({
    code: z.string().regex(/^[a-z][a-z0-9-]{1,60}$/),
    message: z.string().max(2000),
    next: z.string().max(1000),
  }),
});

/**
 * Sends one order to the app tier of this node.
 *
 * @throws OperatorError `app-tier-not-running`, `app-tier-silent`, `app-tier-answer`, and what the app tier refuses
 */
export async function askAppTier<S extends z.ZodType>(
  socketPath: string,
  { order, body, schema }: { readonly order: string; readonly body: object; readonly schema: S },
): Promise<z.output<S>> {
  const text = await throughSocket(socketPath, (path) => post(path, `/accounts/${order}`, body));
  const answer = parsed(text);
  const refused = Refused.safeParse(answer);
  if (refused.success) {
    const { code, message, next } = refused.data.error;
    throw new OperatorError(code, oneLine(message), oneLine(next));
  }
  const result = schema.safeParse(answer);
  if (result.success) return result.data;
  throw new OperatorError(
    'app-tier-answer',
    'the app tier of this node gave an answer that the daemon does not understand',
    `the two may differ in version: systemctl restart ${UNIT}`,
  );
}

/**
 * The directory belongs to the app tier: the path must be a socket, and not a link to another user's socket, to which
 * the daemon would send orders with its own rights.
 */
async function throughSocket<T>(socketPath: string, ask: (path: string) => Promise<T>): Promise<T> {
  try {
    const file = await open(socketPath, O_PATH | constants.O_NOFOLLOW);
    try {
      if (!(await file.stat()).isSocket())
        throw new OperatorError(
          'app-tier-answer',
          `${socketPath} is not a socket`,
          `systemctl restart ${UNIT}`,
        );
      return await ask(`/proc/self/fd/${file.fd}`);
    } finally {
      await file.close();
    }
  } catch (error) {
    throw unreachable(error, socketPath);
  }
}

async function post(path: string, url: string, body: object): Promise<string> {
  const text = JSON.stringify(body);
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const call = request({
      socketPath: path,
      method: 'POST',
      path: url,
      headers: {
        host: 'localhost',
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(text),
      },
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    call.once('error', reject);
    call.once('response', resolve);
    call.end(text);
  });
  let whole = '';
  for await (const part of response.setEncoding('utf8')) {
    whole += String(part);
    if (whole.length > MAX_ANSWER_BYTES) break;
  }
  return whole;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function unreachable(error: unknown, socketPath: string): Error {
  if (error instanceof OperatorError) return error;
  const { code, name, message } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT' || code === 'ECONNREFUSED' || code === 'ENOTDIR')
    return new OperatorError(
      'app-tier-not-running',
      'the app tier, which has the accounts, does not run on this node',
      `systemctl start ${UNIT}, or use another app node; to set it up see docs/app.md`,
      { cause: error },
    );
  if (name === 'AbortError' || name === 'TimeoutError')
    return new OperatorError(
      'app-tier-silent',
      `the app tier has not answered within ${TIMEOUT_MS / 1000} s`,
      `journalctl -u ${UNIT} -n 50; then check with \`bornemisza accounts show\` whether it was done`,
      { cause: error },
    );
  return new OperatorError(
    'app-tier-answer',
    `the app tier is not reachable at ${socketPath}: ${code ?? message}`,
    `journalctl -u ${UNIT} -n 50; after an upgrade of the package: systemctl restart bornemisza@app ${UNIT}`,
    { cause: error },
  );
}
