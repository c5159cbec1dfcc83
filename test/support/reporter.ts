import { Transform, type TransformCallback } from 'node:stream';

/**
 * A tap reporter: one line for each test file that passed, the whole of each that did not, and last a line
 * `N passed, N failed` made from tap's own closing totals.
 */
export default class Reporter extends Transform {
  #rest = '';
  #block: string[] = [];
  #pass = 0;
  #fail = 0;
  #failedFiles = 0;

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    const lines = (this.#rest + chunk.toString('utf8')).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#line(line);
    done();
  }

  override _flush(done: TransformCallback): void {
    this.#line(this.#rest);
    this.push(`\n${this.#pass} passed, ${Math.max(this.#fail, this.#failedFiles)} failed\n`);
    done();
  }

  #line(line: string): void {
    const totals = /^# \{ total: \d+(?:, pass: (\d+))?(?:, fail: (\d+))?/.exec(line);
    if (totals !== null) {
      this.#pass = Number(totals[1] ?? 0);
      this.#fail = Number(totals[2] ?? 0);
    } else if (line.startsWith('Bail out!')) {
      this.#failedFiles += 1;
      this.push(`${line}\n`);
    } else if (/^ok \d+/.test(line)) {
      this.push(`${line.replace(' # time=', '  ')}\n`);
      this.#block = [];
    } else if (/^not ok \d+/.test(line)) {
      this.#failedFiles += 1;
      this.push(`${this.#block.join('\n')}\n${line}\n`);
      this.#block = [];
    } else {
      this.#block.push(line);
    }
  }
}
