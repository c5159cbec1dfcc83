import { z } from '@hono/zod-openapi';
import { PROBLEMS, type ProblemCode } from './problems.ts';
import { ProblemShape } from './shapes.ts';

interface Described {
  readonly description: string;
  readonly content?: Readonly<Record<string, { readonly schema: z.ZodType }>>;
}

/** A JSON body of a request. */
export function json<T extends z.ZodType>(
  schema: T,
): { body: { content: { 'application/json': { schema: T } }; required: true } } {
  return { body: { content: { 'application/json': { schema } }, required: true } };
}

/** The answers of a route: a sentence or a body for each status, and its own problems. */
export function answers(
  well: Readonly<Record<number, string | z.ZodType>>,
  ...problems: readonly ProblemCode[]
): Record<number, Described> {
  const described: Record<number, Described> = {};
  for (const [status, what] of Object.entries(well)) {
    described[Number(status)] =
      typeof what === 'string'
        ? { description: what }
        : { description: 'Done.', content: { 'application/json': { schema: what } } };
  }
  for (const code of problems) {
    const [status] = PROBLEMS[code];
    const before = described[status]?.description;
    described[status] = {
      description: before === undefined ? code : `${before}, ${code}`,
      content: { 'application/problem+json': { schema: ProblemShape } },
    };
  }
  return described;
}
