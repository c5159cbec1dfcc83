/** Of ustar (POSIX.1-1988): all is in blocks of 512 bytes. */
const BLOCK = 512;

/**
 * One file of a tar archive. @param path at most 100 bytes of ASCII, relative
 *
 * @param mtimeS since the epoch
 */
export function tarEntry(path: string, content: Uint8Array, mtimeS: number): Buffer {
  const head = Buffer.alloc(BLOCK);
  const octal = (value: number, length: number): string => `${value.toString(8).padStart(length - 1, '0')}\0`;
  head.write(path, 0, 100, 'ascii');
  head.write(octal(0o600, 8), 100, 'ascii');
  head.write(octal(0, 8), 108, 'ascii');
  head.write(octal(0, 8), 116, 'ascii');
  head.write(octal(content.byteLength, 12), 124, 'ascii');
  head.write(octal(Math.floor(mtimeS), 12), 136, 'ascii');
  head.write('        ', 148, 'ascii');
  head.write('0', 156, 'ascii');
  head.write('ustar\0', 257, 'ascii');
  head.write('00', 263, 'ascii');
  const sum = head.reduce((all, byte) => all + byte, 0);
  head.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'ascii');
  const padding = Buffer.alloc((BLOCK - (content.byteLength % BLOCK)) % BLOCK);
  return Buffer.concat([head, content, padding]);
}

/** What ends an archive. */
export const tarEnd = (): Buffer => Buffer.alloc(2 * BLOCK);
