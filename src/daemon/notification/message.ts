import type { Happening, NoticeEvent } from './policy.ts';

/** One message to people, in the form of each channel. Pure. */

export interface Sender {
  readonly cluster: string;
  /** HOST/ROLE of the node that sends. */
  readonly node: string;
  /** It reaches no other node: its report about them is its own view only. */
  readonly alone: boolean;
}

export interface Message {
  /** One line of printable characters. */
  readonly subject: string;
  /** Plain text, lines of their own. */
  readonly text: string;
  /** For programs: the webhook's body, the command's standard input. */
  readonly payload: Payload;
}

/** `text` is what chat servers show (Slack, Mattermost); the rest is for programs. Times are ISO 8601, UTC. */
export interface Payload {
  readonly text: string;
  readonly subject: string;
  readonly cluster: string;
  readonly node: string;
  readonly at: string;
  readonly test: boolean;
  readonly events: readonly {
    readonly kind: NoticeEvent['kind'];
    readonly state: Happening;
    readonly subject: string;
    readonly what: string;
    readonly next: string;
    readonly since: string;
    readonly until: string | null;
  }[];
}

/** Nobody reads a long mail to its end; the rest is in `bornemisza events`. */
const MAX_EVENTS_IN_TEXT = 30;
const MAX_SUBJECT_CHARACTERS = 150;

export function messageAbout(
  events: readonly NoticeEvent[],
  { cluster, node, alone }: Sender,
  nowMs: number,
): Message {
  const sender = { cluster: oneLine(cluster), node: oneLine(node), alone };
  // New conditions come before ended ones.
  const ordered = events.map(inLines).sort((one, other) => URGENCY[one.state] - URGENCY[other.state]);
  const [first, ...others] = ordered;
  const more = others.length === 0 ? '' : `, and ${others.length} more`;
  const headline = `${first === undefined ? 'nothing' : headlineOf(first)}${more}`;
  const shown = ordered.slice(0, MAX_EVENTS_IN_TEXT);
  const left = ordered.length - shown.length;
  return messageOf(
    headline,
    [
      ...(sender.alone
        ? [`${sender.node} reaches no other node: it is cut off from them, or they are dead.`, '']
        : []),
      ...shown.flatMap(linesOf),
      ...(left > 0 ? [`… and ${left} more: bornemisza events`] : []),
    ],
    { ...sender, test: false, events: ordered },
    nowMs,
  );
}

export function testMessage(sender: Sender, nowMs: number): Message {
  return messageOf(
    `test from ${sender.node}`,
    [`This is a test from ${sender.node}. Notifications of cluster ${sender.cluster} will arrive here.`],
    { ...sender, test: true, events: [] },
    nowMs,
  );
}

const URGENCY: Readonly<Record<Happening, number>> = { began: 0, passed: 1, ended: 2 };

/** Control characters and line ends. */
const NOT_OF_A_LINE = /[\p{Cc}\p{Zl}\p{Zp}]+/gu;

function oneLine(words: string): string {
  return words.replaceAll(NOT_OF_A_LINE, ' ').trim();
}

/** Text from a server, a program or another node must not add lines to a message. */
function inLines(event: NoticeEvent): NoticeEvent {
  const { subject, what, next } = event;
  return { ...event, subject: oneLine(subject), what: oneLine(what), next: oneLine(next) };
}

function headlineOf({ what }: NoticeEvent): string {
  return what.split(/[:,;(]/)[0]?.trim() ?? what;
}

function linesOf({ state, what, next, sinceMs, untilMs }: NoticeEvent): string[] {
  const since = timeOf(sinceMs);
  const when = state === 'began' ? `since ${since}` : `${since} to ${timeOf(untilMs ?? sinceMs)}`;
  return [`* ${what} (${when})`, ...(next === '' ? [] : [`  next: ${next}`])];
}

function messageOf(
  headline: string,
  lines: readonly string[],
  about: Sender & { readonly test: boolean; readonly events: readonly NoticeEvent[] },
  nowMs: number,
): Message {
  const { cluster, node, test, events } = about;
  const subject = `[${cluster}] ${headline}`.slice(0, MAX_SUBJECT_CHARACTERS);
  const text = `${[...lines, '', `Sent by ${node} of cluster ${cluster}.`].join('\n')}\n`;
  return {
    subject,
    text,
    payload: {
      text: `${subject}\n${text}`,
      subject,
      cluster,
      node,
      at: new Date(nowMs).toISOString(),
      test,
      events: events.map(({ kind, state, subject: about, what, next, sinceMs, untilMs }) => ({
        kind,
        state,
        subject: about,
        what,
        next,
        since: new Date(sinceMs).toISOString(),
        until: untilMs === undefined ? null : new Date(untilMs).toISOString(),
      })),
    },
  };
}

/** `2026-11-22 20:41:05 UTC` */
function timeOf(wallMs: number): string {
  return `${new Date(wallMs).toISOString().slice(0, 19).replace('T', ' ')} UTC`;
}
