import type { Me, ProblemShape } from './shapes.ts';
import { fill, words } from './words.ts';

export type { Me };

/** The result of a request. */
export type Answer<T> =
  | { readonly ok: true; readonly body: T }
  | { readonly ok: false; readonly status: number; readonly code: string; readonly text: string };

/** One request to our API. An offline browser or a lost node is also a result. */
export async function ask<T = unknown>(
  method: string,
  path: string,
  body?: unknown,
  signal?: AbortSignal,
): Promise<Answer<T>> {
  try {
    const answer = await fetch(`/api${path}`, {
      method,
      credentials: 'same-origin',
      ...(body !== undefined && {
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
      }),
      ...(signal && { signal }),
    });
    const parsed: unknown = answer.status === 204 ? undefined : await answer.json().catch(() => undefined);
    if (answer.ok) return { ok: true, body: parsed as T };
    return failure(answer, parsed as Partial<ProblemShape> | undefined);
  } catch {
    return { ok: false, status: 0, code: 'offline', text: words.failed };
  }
}

function failure(answer: Response, problem: Partial<ProblemShape> | undefined): Answer<never> {
  const code = problem?.type?.replace('/problems/', '') ?? 'failed';
  const minutes = Math.ceil(Number(answer.headers.get('retry-after') ?? 60) / 60);
  const text =
    answer.status === 429
      ? fill(words.tooMany, fill(words.minutes, minutes))
      : (problem?.errors?.[0]?.detail ?? problem?.detail ?? problem?.title ?? words.failed);
  return { ok: false, status: answer.status, code, text };
}
