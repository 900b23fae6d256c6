import { useState } from "react";
import { strings } from "../../lib/strings";
import { value } from "./numbers";
import type { Axis, Line } from "./plots";

const words = strings.runs;
const MOST_ROWS = 100;

/** The points of some lines, side by side, the newest first; evenly thinned where there are many. */
export function rowsOf(lines: readonly Line[], most: number): { x: number; ys: (number | null)[] }[] {
  const places = [...new Set(lines.flatMap((line) => line.xs))].sort((a, b) => b - a);
  const step = Math.max(1, Math.ceil(places.length / most));
  const values = lines.map((line) => new Map(line.xs.map((x, index) => [x, line.ys[index] ?? null])));
  return places.filter((_, index) => index % step === 0).map((x) => ({ x, ys: values.map((one) => one.get(x) ?? null) }));
}

/** The same numbers as a plot, for those who do not see it. */
export function PlotTable({ title, axis, lines, names }: { title: string; axis: Axis; lines: readonly Line[]; names: readonly string[] }) {
  const [open, setOpen] = useState(false);
  return (
    <details className="plot-table" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        {words.table}
        <span className="visually-hidden">: {title}</span>
      </summary>
      {open && (
        <div className="table-scroll" role="region" aria-label={words.tableOf(title)} tabIndex={0}>
          <table>
            <thead>
              <tr>
                <th scope="col">{words.xs[axis] ?? axis}</th>
                {names.map((name) => (
                  <th key={name} scope="col">
                    {name}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {rowsOf(lines, MOST_ROWS).map((row) => (
                <tr key={row.x}>
                  <th scope="row">{value(row.x)}</th>
                  {row.ys.map((y, index) => (
                    <td key={names[index]}>{y === null ? words.noValue : value(y)}</td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </details>
  );
}
