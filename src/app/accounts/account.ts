/** An account as `_users` has it, without CouchDB's own fields. */
export interface Account {
  readonly name: string;
  readonly email: string;
  /** Rises with each change of password or address, and with "sign out everywhere": ends all older sessions. */
  readonly epoch: number;
  /** Argon2id of the person's password. A field `password` would be hashed by CouchDB. */
  readonly secret: string;
  /** Sessions that a sign-out ended before their time. */
  readonly signedOut: readonly { readonly id: string; readonly untilMs: number }[];
  /** The app key from which CouchDB's password of this account is derived. */
  readonly keyId: string;
  readonly disabled: boolean;
}

/** The limit of that list; a further sign-out ends all sessions instead (epoch + 1). */
export const MAX_SIGNED_OUT = 50;

/**
 * One account from all versions that a conflict left. The higher epoch wins, since it ended sessions; between equal
 * epochs the revision decides, so every node picks the same version. Ended sessions of all versions stay ended.
 */
export function mergeAccounts(
  versions: readonly { readonly rev: string; readonly account: Account }[],
  nowMs: number,
): { readonly account: Account; readonly rev: string; readonly losers: readonly string[] } | undefined {
  const [first, ...rest] = versions.toSorted(
    (a, b) => b.account.epoch - a.account.epoch || (a.rev < b.rev ? 1 : -1),
  );
  if (first === undefined) return undefined;
  const ended = new Map<string, number>();
  for (const { account } of versions)
    for (const { id, untilMs } of account.signedOut) if (untilMs > nowMs) ended.set(id, untilMs);
  const signedOut = [...ended]
    .map(([id, untilMs]) => ({ id, untilMs }))
    .toSorted((a, b) => b.untilMs - a.untilMs || (a.id < b.id ? -1 : 1));
  const disabled = versions.some(({ account }) => account.disabled);
  const account = { ...first.account, signedOut, disabled };
  return { account, rev: first.rev, losers: rest.map(({ rev }) => rev) };
}

/** What a sign-out writes. */
export function withSignedOut(account: Account, id: string, untilMs: number, nowMs: number): Account {
  const kept = account.signedOut.filter((each) => each.untilMs > nowMs && each.id !== id);
  if (kept.length >= MAX_SIGNED_OUT) return { ...account, epoch: account.epoch + 1, signedOut: [] };
  return { ...account, signedOut: [...kept, { id, untilMs }] };
}

/** Ends every session and mailed link of the account, also for the time after it is enabled again. */
export function withDisabled(account: Account): Account {
  return { ...account, disabled: true, epoch: account.epoch + 1, signedOut: [] };
}

export function isSessionOf(account: Account, session: { id: string; epoch: number }): boolean {
  if (account.disabled || session.epoch !== account.epoch) return false;
  return !account.signedOut.some(({ id }) => id === session.id);
}
