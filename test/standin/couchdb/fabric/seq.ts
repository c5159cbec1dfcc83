/** Where a feed stands in one range: the copy it was read from and that copy's sequence. */
export type SeqPart = { range: string; node: string; uuid: string; seq: number };

/** `21-g1AAA…`: the sum for people, the rest opaque to clients. */
export function encodeSeq(parts: SeqPart[]): string {
  const sum = parts.reduce((total, { seq }) => total + seq, 0);
  const packed = parts.map(({ range, node, uuid, seq }) => [range, node, uuid, seq]);
  return `${sum}-${Buffer.from(JSON.stringify(packed)).toString('base64url')}`;
}

/** @returns nothing known for a seq of `0`, or for one that is not ours. */
export function decodeSeq(text: string): SeqPart[] {
  const at = text.indexOf('-');
  if (at < 0) return [];
  try {
    const packed = JSON.parse(Buffer.from(text.slice(at + 1), 'base64url').toString()) as [
      string,
      string,
      string,
      number,
    ][];
    return packed.map(([range, node, uuid, seq]) => ({ range, node, uuid, seq }));
  } catch {
    return [];
  }
}
