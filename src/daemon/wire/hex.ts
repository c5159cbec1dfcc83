import { BadValue } from './result.ts';

export function bytesFromHex(hex: string): Uint8Array {
  const bytes = new Uint8Array(hex.length >> 1);
  for (let index = 0; index < bytes.length; index += 1)
    bytes[index] = Number.parseInt(hex.slice(2 * index, 2 * index + 2), 16);
  return bytes;
}

/** Lower-case hex. More bytes than `atMost` are refused before a string is built of them. */
export function hexFromBytes(bytes: Uint8Array, atMost: number): string {
  if (bytes.byteLength > atMost) throw new BadValue(`${bytes.byteLength} bytes in place of ${atMost}`);
  let hex = '';
  for (const byte of bytes) hex += byte.toString(16).padStart(2, '0');
  return hex;
}
