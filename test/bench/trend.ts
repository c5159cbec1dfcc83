export interface Point {
  readonly x: number;
  readonly y: number;
}
export interface Trend {
  /** Of the least-squares line, y per x. */
  readonly slope: number;
  /** Upper end of the two-sided 95 % interval of the slope. */
  readonly upper95: number;
}

/** Normal quantile: with the dozens of points that a soak takes, Student's is within a few per cent of it. */
const Z95 = 1.96;

/** Ordinary least squares. @throws RangeError for fewer than three points */
export function trendOf(points: readonly Point[]): Trend {
  const n = points.length;
  if (n < 3) throw new RangeError('a trend needs three points');
  const mean = (of: (point: Point) => number): number =>
    points.reduce((sum, point) => sum + of(point), 0) / n;
  const [meanX, meanY] = [mean(({ x }) => x), mean(({ y }) => y)];
  const spread = points.reduce((sum, { x }) => sum + (x - meanX) ** 2, 0);
  const slope = points.reduce((sum, { x, y }) => sum + (x - meanX) * (y - meanY), 0) / spread;
  const residual = points.reduce((sum, { x, y }) => sum + (y - meanY - slope * (x - meanX)) ** 2, 0);
  return { slope, upper95: slope + Z95 * Math.sqrt(residual / (n - 2) / spread) };
}
