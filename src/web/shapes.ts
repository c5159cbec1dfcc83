/** The part of the API that the page reads; /api/openapi.json describes all of it. */
export interface Me {
  readonly account: string;
  readonly email: string;
  readonly roles: readonly string[];
  readonly quota: { readonly bytes: number; readonly usedBytes: number | null };
}

/** A failure (RFC 9457); `type` ends with its code. */
export interface ProblemShape {
  readonly type: string;
  readonly status: number;
  readonly title: string;
  readonly detail?: string | undefined;
  readonly errors?: readonly { readonly pointer: string; readonly detail: string }[] | undefined;
}
