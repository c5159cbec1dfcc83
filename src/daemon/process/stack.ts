import { readFileSync } from 'node:fs';
import { SourceMap, type SourceMapPayload } from 'node:module';
import { fileURLToPath } from 'node:url';

/** What is deeper is the event loop's. */
const MAX_FRAMES = 12;
const POSITION = /(file:\/\/[^\s()]+):(\d+):(\d+)/;

/**
 * Where a bug is: a line for each frame of an error's stack, in terms of the source where a source map lies beside the
 * file. The map is read here and nowhere else: with --enable-source-maps Node.js keeps it from the first stack on, 60
 * MB for a bundle of 4.5. Blocks for a tenth of a second, which is nothing to a process that ends.
 */
export function framesOf(error: unknown): string[] {
  if (!(error instanceof Error)) return [];
  const maps = new Map<string, SourceMap | undefined>();
  return (error.stack ?? '')
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line.startsWith('at '))
    .slice(0, MAX_FRAMES)
    .map((frame) =>
      frame.replace(POSITION, (...[position, file, line, column]) => {
        if (!maps.has(file)) maps.set(file, mapOf(fileURLToPath(file)));
        const origin = maps.get(file)?.findOrigin(Number(line), Number(column));
        return origin !== undefined && 'fileName' in origin
          ? `${origin.fileName.replace(/^(\.\.\/)+/, '')}:${origin.lineNumber}:${origin.columnNumber}`
          : position;
      }),
    );
}

/** A bug is reported without its map rather than not at all. */
function mapOf(file: string): SourceMap | undefined {
  try {
    return new SourceMap(JSON.parse(readFileSync(`${file}.map`, 'utf8')) as SourceMapPayload);
  } catch {
    return undefined;
  }
}
