/** As much of MessagePack as Serf's RPC needs: maps, arrays, text, whole numbers, booleans and nothing. */
export type Value = null | boolean | number | string | Uint8Array | Value[] | { [key: string]: Value };

export function encode(value: Value): Buffer {
  if (typeof value === 'number') {
    const bytes = Buffer.alloc(5);
    bytes[0] = 0xce;
    bytes.writeUInt32BE(value, 1);
    return bytes;
  }
  if (typeof value === 'string') {
    const text = Buffer.from(value);
    const head = Buffer.alloc(3);
    head[0] = 0xda;
    head.writeUInt16BE(text.length, 1);
    return Buffer.concat([head, text]);
  }
  if (value === null) return Buffer.from([0xc0]);
  if (typeof value === 'boolean') return Buffer.from([value ? 0xc3 : 0xc2]);
  if (value instanceof Uint8Array) throw new TypeError('nothing that we send is binary');
  const isList = Array.isArray(value);
  const parts = isList ? value : Object.entries(value).flat();
  const head = Buffer.alloc(3);
  head[0] = isList ? 0xdc : 0xde;
  head.writeUInt16BE(isList ? parts.length : parts.length / 2, 1);
  return Buffer.concat([head, ...parts.map(encode)]);
}

/** Reads values one after the other; `next` is undefined, and nothing is taken, until a whole one is there. */
export class Decoder {
  #bytes: Buffer = Buffer.alloc(0);
  #at = 0;

  push(chunk: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
  }

  next(): Value | undefined {
    this.#at = 0;
    try {
      const value = this.#value();
      this.#bytes = this.#bytes.subarray(this.#at);
      return value;
    } catch (error) {
      if (error instanceof RangeError) return undefined;
      throw error;
    }
  }

  #take(length: number): Buffer {
    if (this.#at + length > this.#bytes.length) throw new RangeError('not all is here yet');
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  #uint(length: number): number {
    const bytes = this.#take(length);
    return length === 8 ? Number(bytes.readBigUInt64BE()) : bytes.readUIntBE(0, length);
  }

  #value(): Value {
    const type = this.#uint(1);
    if (type < 0x80) return type;
    if (type < 0x90) return this.#map(type & 0x0f);
    if (type < 0xa0) return this.#list(type & 0x0f);
    if (type < 0xc0) return this.#take(type & 0x1f).toString();
    if (type >= 0xe0) return type - 0x100;
    switch (type) {
      case 0xc0:
        return null;
      case 0xc2:
      case 0xc3:
        return type === 0xc3;
      case 0xc4:
        return new Uint8Array(this.#take(this.#uint(1)));
      case 0xcc:
      case 0xcd:
      case 0xce:
      case 0xcf:
        return this.#uint(2 ** (type - 0xcc));
      case 0xd0:
        return this.#take(1).readInt8();
      case 0xd9:
      case 0xda:
        return this.#take(this.#uint(type - 0xd8)).toString();
      case 0xdc:
        return this.#list(this.#uint(2));
      case 0xde:
        return this.#map(this.#uint(2));
      default:
        throw new TypeError(`MessagePack type 0x${type.toString(16)} is not expected of Serf`);
    }
  }

  #list(length: number): Value[] {
    return Array.from({ length }, () => this.#value());
  }

  #map(length: number): { [key: string]: Value } {
    const map: { [key: string]: Value } = {};
    for (let entry = 0; entry < length; entry += 1) {
      const key = this.#value();
      if (typeof key !== 'string') throw new TypeError('Serf names its fields by text');
      map[key] = this.#value();
    }
    return map;
  }
}
