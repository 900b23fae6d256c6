/** Both ends of a long name: names of runs often begin alike, and differ at their ends. */
export function shortened(name: string, most: number): string {
  const letters = Array.from(new Intl.Segmenter().segment(name), ({ segment }) => segment);
  if (letters.length <= most) return name;
  const end = Math.floor(most / 2);
  return `${letters.slice(0, most - end - 1).join("")}…${letters.slice(-end).join("")}`;
}
