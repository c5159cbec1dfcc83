const VALUE = String.raw`(?:"(?:[^"\\]|\\.)*"|'[^']*'|[\w.+:-]+)`;

/**
 * A TOML text with one string set, in its table (`''`: before the first). Every other line stays as it is, also the
 * comment beside the value. A key that is written in several lines, or in a dotted or quoted form, is not found: the
 * caller parses the result, and TOML refuses a key that is there twice.
 */
export function withString(text: string, table: string, key: string, value: string): string {
  const lines = text.replace(/\n*$/, '').split('\n');
  if (lines.length === 1 && lines[0] === '') lines.pop();
  const head = lines.findIndex((line) => new RegExp(String.raw`^\s*\[\s*${table}\s*\]`).test(line));
  if (table !== '' && head < 0)
    return `${[...lines, '', `[${table}]`, `${key} = ${JSON.stringify(value)}`].join('\n')}\n`;
  const from = table === '' ? 0 : head + 1;
  const next = lines.findIndex((line, at) => at >= from && /^\s*\[/.test(line));
  const end = next < 0 ? lines.length : next;
  const form = new RegExp(String.raw`^(\s*${key}\s*=\s*)${VALUE}(\s*(?:#.*)?)$`);
  const at = lines.findIndex((line, index) => index >= from && index < end && form.test(line));
  const [, before = `${key} = `, after = ''] = form.exec(lines[at] ?? '') ?? [];
  const line = `${before}${JSON.stringify(value)}${after}`;
  if (at >= 0) return `${lines.with(at, line).join('\n')}\n`;
  let last = end;
  while (last > from && lines[last - 1]?.trim() === '') last -= 1;
  return `${lines.toSpliced(last, 0, line).join('\n')}\n`;
}
