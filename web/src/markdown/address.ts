const SAFE = new Set(["http:", "https:", "mailto:"]);

/** An address that a reader may follow by a click; undefined for all that could run or reach inward.
 *
 * Only whole addresses count: a relative one in a model's text would call this very server.
 */
export function safeAddress(given: string | undefined): string | undefined {
  if (given === undefined) return undefined;
  let url: URL;
  try {
    url = new URL(given);
  } catch {
    return undefined;
  }
  return SAFE.has(url.protocol) && url.username === "" && url.password === "" ? url.href : undefined;
}
