import type { RunCurve } from "../../api/types";

/** A number of each bucket; the lowest and the highest where a bucket stands for several lines. */
export interface Column {
  means: (number | null)[];
  lows: (number | null)[] | null;
  highs: (number | null)[] | null;
}

export interface Table {
  steps: number[];
  width: number;
  columns: ReadonlyMap<string, Column>;
}

/** What is known of a curve, and what to ask with for the rest. */
export interface Curve {
  cursor: string;
  skipped: number;
  left: number;
  problem: string;
  tables: ReadonlyMap<string, Table>;
}

/** What is known after an answer of the server; its parts replace what was known from their starts on. */
export function merged(known: Curve | null, news: RunCurve): Curve {
  const before = news.fresh ? null : known;
  const tables = new Map<string, Table>();
  for (const part of news.parts) {
    const old = before?.tables.get(part.kind);
    const upTo = <T>(values: readonly T[] | null | undefined, rest: readonly T[] | null): T[] | null =>
      rest && [...(values ?? []).slice(0, part.start), ...rest];
    const columns = part.columns.map(({ name, means, lows, highs }): [string, Column] => {
      const column = old?.columns.get(name);
      return [name, { means: upTo(column?.means, means) ?? [], lows: upTo(column?.lows, lows), highs: upTo(column?.highs, highs) }];
    });
    tables.set(part.kind, { steps: upTo(old?.steps, part.steps) ?? [], width: part.width, columns: new Map(columns) });
  }
  return { cursor: news.cursor, skipped: news.skipped, left: news.left, problem: news.problem, tables };
}

/** An average that forgets: `weight` of what was, from 0 to below 1; gaps stay gaps. Corrected for its start at nothing. */
export function smoothed(values: readonly (number | null)[], weight: number): (number | null)[] {
  let sum = 0;
  let share = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    share = weight * share + (1 - weight);
    return sum / share;
  });
}
