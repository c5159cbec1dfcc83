import { createPrivateKey } from 'node:crypto';
import { request } from 'node:http';
import { keyAuthorization } from '../../acme/jws.ts';

interface Edge {
  readonly name: string;
  readonly address: string;
  readonly port: number;
}

/** Enough for a healthy edge. */
const TIMEOUT_MS = 1000;
/** TOKEN.THUMBPRINT is shorter. */
const MOST_BYTES = 1024;
/** Every token gets the same answer; this one names the sender. */
const TOKEN = 'bornemisza';

/** @returns names of the edges that would not answer a check of the CA; never throws */
export async function silentEdges(
  edges: readonly Edge[],
  accountKey: string,
  signal: AbortSignal,
): Promise<string[]> {
  const expected = keyAuthorization(TOKEN, createPrivateKey(accountKey));
  const answers = await Promise.all(edges.map((each) => answerOf(each, signal)));
  return edges.filter((_, at) => answers[at] !== expected).map(({ name }) => name);
}

function answerOf({ address, port }: Edge, signal: AbortSignal): Promise<string | undefined> {
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  const path = `/.well-known/acme-challenge/${TOKEN}`;
  const until = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]);
  const asked = request({ host: address, port, path, agent: false, signal: until }, (response) => {
    let text = '';
    response.setEncoding('latin1');
    response.on('data', (part: string) => {
      text += part;
      if (text.length > MOST_BYTES) asked.destroy();
    });
    response.on('error', () => resolve(undefined));
    response.on('close', () => resolve(undefined));
    response.on('end', () => resolve(response.statusCode === 200 ? text : undefined));
  });
  asked.on('error', () => resolve(undefined));
  asked.end();
  return promise;
}
