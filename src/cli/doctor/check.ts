import { CliFailure } from '../failure.ts';

/** One check. `fail`: this node cannot do its work; `warn`: that will or can happen later. */
export interface Check {
  readonly area: string;
  readonly name: string;
  readonly state: 'ok' | 'warn' | 'fail';
  readonly detail: string;
  /** The next step; '' if all is well. */
  readonly next: string;
}

/** Makes the checks of one area, e.g. `host` or `app`. */
export interface Area {
  ok(name: string, detail: string): Check;
  warn(name: string, detail: string, next: string): Check;
  fail(name: string, detail: string, next: string): Check;
}

export function areaOf(area: string): Area {
  return {
    ok: (name, detail) => ({ area, name, state: 'ok', detail, next: '' }),
    warn: (name, detail, next) => ({ area, name, state: 'warn', detail, next }),
    fail: (name, detail, next) => ({ area, name, state: 'fail', detail, next }),
  };
}

/** A check that needs another program's answer. Without one it says so, and the other checks go on. */
export async function unlessSilent(
  area: Area,
  name: string,
  check: () => Promise<readonly Check[]>,
): Promise<readonly Check[]> {
  try {
    return await check();
  } catch (error) {
    if (!(error instanceof CliFailure) || !NO_ANSWER.has(error.code)) throw error;
    return [area.warn(name, `not checked: ${error.message}`, error.next)];
  }
}

const NO_ANSWER: ReadonlySet<string> = new Set(['program-no-answer', 'program-failed']);
