import type { Host } from '../lab/index.ts';

/** Anything shorter is found by chance. */
const SHORTEST = 16;

/**
 * Every secret that a host keeps on its disk, in the forms in which it would leak: lines of private keys, Erlang's
 * cookie, the secret of CouchDB's sessions, passwords and their hash, the passphrase and the body of the recovery
 * bundle.
 */
export async function secretsOf(host: Host): Promise<string[]> {
  const keys = await host.must([
    'sh',
    '-c',
    'grep -rlE "PRIVATE KEY|RECOVERY BUNDLE" /var/lib/bornemisza /root/recovery.txt 2>/dev/null | while ' +
      'read -r file; do cat "$file"; echo; done',
  ]);
  const values = await host.must([
    'sh',
    '-c',
    'cat /var/lib/bornemisza/*/secrets.json /var/lib/bornemisza/couchdb/cookie 2>/dev/null; echo',
  ]);
  const passphrase = /^Passphrase: (\S+)$/m.exec(keys)?.[1];
  return [
    ...new Set([
      ...privateLines(keys),
      ...(passphrase === undefined ? [] : [passphrase]),
      ...(values.match(/"(?:cookie|authSecret|password|hash|secret)":"[^"]+"/g) ?? []).map((pair) =>
        pair.replace(/^"\w+":"(.*)"$/, '$1'),
      ),
    ]),
  ].filter((each) => each.length >= SHORTEST);
}

/** The base64 lines of every private block; certificates beside them are public. */
function privateLines(text: string): string[] {
  const blocks = text.match(/-----BEGIN [A-Z ]*(?:PRIVATE KEY|RECOVERY BUNDLE)-----[^-]*/g) ?? [];
  return blocks.flatMap((block) => block.split('\n').slice(1)).map((line) => line.trim());
}

/**
 * Where any of the secrets shows on a host: the whole journal, every process's command line and environment, every
 * answer of every control socket, the audit trail, and each file that a user without any rights may read.
 */
export async function leaksOn(host: Host, secrets: readonly string[]): Promise<string[]> {
  const patterns = `${secrets.join('\n')}\n`;
  const script = `
    patterns=/run/lab-scan; (umask 077; cat >$patterns)
    journalctl --no-pager --output=export | grep -aqF -f $patterns && echo journal
    for process in /proc/[0-9]*; do
      for part in cmdline environ; do
        tr '\\0' '\\n' 2>/dev/null <$process/$part | grep -aqF -f $patterns && echo "$part of $(cat $process/comm)"
      done
    done
    for socket in /run/bornemisza/*/control.sock; do
      for path in status members plan upgrade 'audit?limit=2000' 'events?limit=2000'; do
        curl -sS --max-time 10 --unix-socket $socket "http://daemon/v1/$path" | grep -aqF -f $patterns &&
          echo "GET $path of $socket"
      done
    done
    grep -lF -f $patterns /var/lib/bornemisza/*/audit.jsonl*
    setpriv --reuid=65534 --regid=65534 --clear-groups grep -rslF -f - /etc/bornemisza /etc/bird /run /tmp \\
      /var/lib/bornemisza /var/lib/couchdb /var/log /var/tmp /srv <$patterns
    rm $patterns`;
  const found = await host.must(['sh', '-c', script], { stdin: patterns, timeoutMs: 120_000 });
  return found.split('\n').filter((line) => line !== '');
}
