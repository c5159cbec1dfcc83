/** A real SMTP server that keeps what it takes: `smtp-sink.ts ADDRESS PORT FILE`, one line of JSON for each mail. */
import { appendFileSync } from 'node:fs';
import { SMTPServer } from 'smtp-server';

const [address = '127.0.0.1', port = '2525', file = '/var/tmp/mails'] = process.argv.slice(2);
const server = new SMTPServer({
  authOptional: true,
  disabledCommands: ['STARTTLS', 'AUTH'],
  disableReverseLookup: true,
  onData: (stream, session, callback) => {
    const parts: Buffer[] = [];
    stream.on('data', (part: Buffer) => parts.push(part));
    stream.on('end', () => {
      const text = Buffer.concat(parts).toString();
      appendFileSync(file, `${JSON.stringify({ to: session.envelope.rcptTo[0]?.address, text })}\n`);
      callback();
    });
  },
});
server.listen(Number(port), address);
