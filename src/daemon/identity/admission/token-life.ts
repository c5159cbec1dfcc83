/** How long a token may live. A machine that is not there within a day gets a fresh one; it is made in a second. */
export const TOKEN_LEAST_MS = 60_000;
export const TOKEN_MOST_MS = 24 * 3_600_000;
export const TOKEN_DEFAULT_MS = 3_600_000;
/**
 * So many tokens may be open at once, and no more are made at once: more than a founder ever adds machines in a day.
 */
export const TOKENS_MOST = 64;
