/** The load average travels only when it moved by this much (× 100), so that a quiet cluster stays quiet. */
const LOAD_STEP = 100;

/**
 * @param said the last published load, × 100
 * @param load average of the last minute
 * @returns the load to publish now, × 100
 */
export function steadyLoad(said: number, load: number): number {
  const now = Math.round(load * 100);
  return Math.abs(now - said) >= LOAD_STEP ? now : said;
}
