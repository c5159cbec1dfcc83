import { readFileSync } from 'node:fs';
import { SourceMap, type SourceMapPayload } from 'node:module';
import { fileURLToPath } from 'node:url';

/** Deeper frames belong to the event loop. */
const MAX_FRAMES = 12;
const POSITION = /(file:\/\/[^\s()]+):(\d+):(\d+)/;

/**
 * The place of a bug: a line for each frame of an error's stack, in terms of the source if there is a source map beside
 * the file. The map is read only here: with --enable-source-maps Node.js keeps it from the first stack on, 60 MB for a
 * bundle of 4.5 MB. It blocks for a tenth of a second, which does not matter in a process that ends.
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

/** Without its map a bug is reported with the positions in the bundle. */
function mapOf(file: string): SourceMap | undefined {
  try {
    return new SourceMap(JSON.parse(readFileSync(`${file}.map`, 'utf8')) as SourceMapPayload);
  } catch {
    return undefined;
  }
}
