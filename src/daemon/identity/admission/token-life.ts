/** Limits of a token's life. A machine that does not appear within a day gets another one, which takes a second. */
export const TOKEN_LEAST_MS = 60_000;
export const TOKEN_MOST_MS = 24 * 3_600_000;
export const TOKEN_DEFAULT_MS = 3_600_000;
/** The limit of open tokens, and of tokens created at once: more than a founder adds machines in a day. */
export const TOKENS_MOST = 64;
