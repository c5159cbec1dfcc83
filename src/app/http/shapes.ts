import { z } from '@hono/zod-openapi';

/** Bodies of the API: one definition gives the check, the type and the description. */
const email = z.string().min(3).max(254);
/** Longer than the longest password, so that the password rules can say what is wrong. */
const password = z.string().min(1).max(1024);
const token = z.string().min(1).max(2048);

export const EmailBody = z.strictObject({ email }).openapi('Email');
export const AccountBody = z.strictObject({ token, password }).openapi('NewAccount');
export const SignInBody = z.strictObject({ email, password }).openapi('SignIn');
export const PasswordByTokenBody = z.strictObject({ token, password }).openapi('PasswordByToken');
export const PasswordChangeBody = z.strictObject({ old: password, new: password }).openapi('PasswordChange');
export const EmailChangeBody = z.strictObject({ email, password }).openapi('EmailChange');
export const TokenBody = z.strictObject({ token }).openapi('Token');
export const PasswordBody = z.strictObject({ password }).openapi('Password');

export const Me = z
  .object({
    account: z.string(),
    email: z.string(),
    roles: z.array(z.string()),
    quota: z.object({ bytes: z.number(), usedBytes: z.number().nullable() }),
  })
  .openapi('Me');
export type Me = z.infer<typeof Me>;

export const ProblemShape = z
  .object({
    type: z.string(),
    status: z.number(),
    title: z.string(),
    detail: z.string().optional(),
    errors: z.array(z.object({ pointer: z.string(), detail: z.string() })).optional(),
  })
  .openapi('Problem');
export type ProblemShape = z.infer<typeof ProblemShape>;
