/** The languages of everything that a person reads: pages, mails, problems. */
export type Language = 'en' | 'de';
export type Text = Readonly<Record<Language, string>>;

interface Asked {
  readonly req: { header(name: string): string | undefined };
}

/** The first language of `Accept-Language` that there are texts for; English without one. */
export function languageOf({ req }: Asked): Language {
  const wanted = (req.header('accept-language') ?? '')
    .split(',')
    .map((each) => each.trim().slice(0, 2).toLowerCase());
  return wanted.find((each) => each === 'de' || each === 'en') ?? 'en';
}

/** A plain string has one language only: it is for developers. */
export const textIn = (language: Language, text: Text | string): string =>
  typeof text === 'string' ? text : text[language];
