/** As a dark terminal shows them. */
const COLOURS: Readonly<Record<string, string>> = {
  31: '#ff7b72',
  32: '#7ee787',
  33: '#e3b341',
  36: '#79c0ff',
};
const PLAIN = '#e6edf3';
const [CELL, LINE, MARGIN] = [8.4, 19, 16];

/** A screen of the demo, with its colours, as a picture. @param screen lines as a terminal gets them */
export function svgOf(screen: string): string {
  const lines = screen.trimEnd().split('\n');
  const columns = Math.max(...lines.map((line) => [...plainOf(line)].length));
  const [width, height] = [Math.ceil(columns * CELL) + 2 * MARGIN, lines.length * LINE + 2 * MARGIN];
  const rows = lines.map((line, at) => {
    const y = MARGIN + (at + 0.75) * LINE;
    return `<text x="${MARGIN}" y="${y}" xml:space="preserve">${spansOf(line)}</text>`;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="monospace" font-size="14">`,
    '<title>The demo: members, servers of HAProxy, floating IP, CouchDB, and what happened</title>',
    `<rect width="${width}" height="${height}" rx="8" fill="#0d1117"/>`,
    `<g fill="${PLAIN}">`,
    ...rows,
    '</g>',
    '</svg>',
    '',
  ].join('\n');
}

const plainOf = (line: string): string => line.replaceAll(SEQUENCE, '');
// oxlint-disable-next-line no-control-regex -- colour sequences begin with ESC
const SEQUENCE = /\u001B\[([0-9;]*)m/g;

/** Each stretch of one look; the sequences are those of node:util's styleText. */
function spansOf(line: string): string {
  let [style, at, column] = ['', 0, 0];
  const out: string[] = [];
  const add = (text: string): void => {
    if (text === '') return;
    // Each stretch stands at its column, whatever the font.
    const x = MARGIN + column * CELL;
    out.push(`<tspan x="${x.toFixed(1)}"${style}>${escaped(text)}</tspan>`);
    column += [...text].length;
  };
  for (const found of line.matchAll(SEQUENCE)) {
    add(line.slice(at, found.index));
    at = found.index + found[0].length;
    style = styleOf(found[1] ?? '');
  }
  add(line.slice(at));
  return out.join('');
}

function styleOf(code: string): string {
  if (code === '1') return ' font-weight="bold"';
  if (code === '2') return ' fill-opacity="0.6"';
  const colour = COLOURS[code];
  return colour === undefined ? '' : ` fill="${colour}"`;
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
