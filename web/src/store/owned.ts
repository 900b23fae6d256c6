/** Answers that this tab was making; after a reload it knows that they are its own. */
const PLACE = "tallyformer.answering";

export function ownedAnswers(): Set<string> {
  try {
    const given: unknown = JSON.parse(sessionStorage.getItem(PLACE) ?? "[]");
    return new Set(Array.isArray(given) ? given.filter((id) => typeof id === "string") : []);
  } catch {
    return new Set();
  }
}

export function setOwned(ids: Iterable<string>): void {
  try {
    sessionStorage.setItem(PLACE, JSON.stringify([...ids]));
  } catch {
    // Then a reload waits until the answer's age shows that nobody makes it.
  }
}
