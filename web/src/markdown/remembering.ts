/** A function whose newest results are kept, so that the same question is not worked on twice. */
export function remembering<T>(make: (given: string) => T, most: number): (given: string) => T {
  const kept = new Map<string, T>();
  return (given) => {
    const found = kept.has(given) ? (kept.get(given) as T) : make(given);
    // The order of a Map is that of its entries' coming: the first is the one that was longest not asked for.
    kept.delete(given);
    kept.set(given, found);
    if (kept.size > most) kept.delete(kept.keys().next().value as string);
    return found;
  };
}
