import type { MailKind } from './http/services.ts';
import type { Language } from './languages.ts';

interface MailText {
  readonly subject: string;
  readonly paragraphs: readonly string[];
  /** The label of the link, if there is one. */
  readonly action: string;
}

/** The texts of each mail. `SITE` is the name of the site. One link at most, no picture, no tracking. */
export const MAIL_TEXTS: Readonly<Record<Language, Readonly<Record<MailKind, MailText>>>> = {
  en: {
    confirm: {
      subject: 'Your account at SITE',
      paragraphs: [
        'Somebody, probably you, wants an account at SITE with this address.',
        'Choose a password with this link. It works for 24 hours. If it was not you, do nothing.',
      ],
      action: 'Choose a password',
    },
    taken: {
      subject: 'You have an account at SITE',
      paragraphs: [
        'Somebody, probably you, wants an account at SITE with this address. You have one already: just sign in.',
        'Have you forgotten the password? This link sets a new one. It works for one hour.',
      ],
      action: 'Set a new password',
    },
    reset: {
      subject: 'A new password for SITE',
      paragraphs: [
        'Somebody, probably you, wants to set a new password for your account at SITE.',
        'This link works for one hour. If it was not you, do nothing: your password stays as it is.',
      ],
      action: 'Set a new password',
    },
    'no-account': {
      subject: 'No account at SITE',
      paragraphs: [
        'Somebody, probably you, wants to set a new password at SITE, but there is no account with this address.',
        'Perhaps you registered with another address.',
      ],
      action: '',
    },
    disabled: {
      subject: 'Your account at SITE is disabled',
      paragraphs: [
        'Somebody, probably you, asked for a link to your account at SITE. The account is disabled, so there is none.',
        'To have it enabled again, answer to this mail.',
      ],
      action: '',
    },
    'change-email': {
      subject: 'Confirm your new address for SITE',
      paragraphs: [
        'Confirm that your account at SITE uses this address from now on. The link works for 24 hours.',
      ],
      action: 'Confirm this address',
    },
    'password-changed': {
      subject: 'Your password at SITE was changed',
      paragraphs: ['The password of your account at SITE was changed. If it was not you, set a new one now.'],
      action: '',
    },
    'email-changed': {
      subject: 'Your address at SITE was changed',
      paragraphs: [
        'Your account at SITE uses another e-mail address now. If it was not you, answer to this mail.',
      ],
      action: '',
    },
  },
  de: {
    confirm: {
      subject: 'Ihr Konto bei SITE',
      paragraphs: [
        'Jemand, vermutlich Sie, möchte mit dieser Adresse ein Konto bei SITE.',
        'Wählen Sie mit diesem Link ein Passwort. Er gilt 24 Stunden. Waren Sie es nicht, tun Sie nichts.',
      ],
      action: 'Passwort wählen',
    },
    taken: {
      subject: 'Sie haben ein Konto bei SITE',
      paragraphs: [
        'Jemand, vermutlich Sie, möchte mit dieser Adresse ein Konto bei SITE. Sie haben schon eines: ' +
          'Melden Sie sich an.',
        'Haben Sie das Passwort vergessen? Dieser Link setzt ein neues. Er gilt eine Stunde.',
      ],
      action: 'Neues Passwort setzen',
    },
    reset: {
      subject: 'Ein neues Passwort für SITE',
      paragraphs: [
        'Jemand, vermutlich Sie, möchte für Ihr Konto bei SITE ein neues Passwort setzen.',
        'Dieser Link gilt eine Stunde. Waren Sie es nicht, tun Sie nichts: Ihr Passwort bleibt, wie es ist.',
      ],
      action: 'Neues Passwort setzen',
    },
    'no-account': {
      subject: 'Kein Konto bei SITE',
      paragraphs: [
        'Jemand, vermutlich Sie, möchte bei SITE ein neues Passwort setzen, aber mit dieser Adresse gibt ' +
          'es kein Konto.',
        'Vielleicht haben Sie sich mit einer anderen Adresse registriert.',
      ],
      action: '',
    },
    disabled: {
      subject: 'Ihr Konto bei SITE ist gesperrt',
      paragraphs: [
        'Jemand, vermutlich Sie, hat einen Link zu Ihrem Konto bei SITE verlangt. Das Konto ist gesperrt, deshalb ' +
          'gibt es keinen.',
        'Damit es wieder freigegeben wird, antworten Sie auf diese Mail.',
      ],
      action: '',
    },
    'change-email': {
      subject: 'Bestätigen Sie Ihre neue Adresse für SITE',
      paragraphs: [
        'Bestätigen Sie, dass Ihr Konto bei SITE ab jetzt diese Adresse benutzt. Der Link gilt 24 Stunden.',
      ],
      action: 'Adresse bestätigen',
    },
    'password-changed': {
      subject: 'Ihr Passwort bei SITE wurde geändert',
      paragraphs: [
        'Das Passwort Ihres Kontos bei SITE wurde geändert. Waren Sie es nicht, setzen Sie jetzt ein neues.',
      ],
      action: '',
    },
    'email-changed': {
      subject: 'Ihre Adresse bei SITE wurde geändert',
      paragraphs: [
        'Ihr Konto bei SITE benutzt jetzt eine andere E-Mail-Adresse. Waren Sie es nicht, antworten Sie ' +
          'auf diese Mail.',
      ],
      action: '',
    },
  },
};
