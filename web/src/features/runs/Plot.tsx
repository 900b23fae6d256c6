import { useEffect, useEffectEvent, useLayoutEffect, useMemo, useRef, useState } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { strings } from "../../lib/strings";
import { Button } from "../../ui/Button";
import { useTheme } from "./colours";
import { dataOf, type Look, mainColumns, optionsOf, putData, showAll, zoomOf } from "./draw";
import { shortened } from "./names";
import { value } from "./numbers";
import { type Axis, type Line, linesOf, type PlotKind } from "./plots";
import { PlotTable } from "./PlotTable";
import type { Curve } from "./curve";

const words = strings.runs;
const HEIGHT = 230;
/** Characters of a run's name in a legend. */
const LONGEST_NAME = 32;

interface Props {
  plot: PlotKind;
  runs: readonly { id: string; colour: number; curve: Curve }[];
  axis: Axis;
  look: Look;
}

/** The newest value of each line, or that at a point. */
function valuesAt(lines: readonly Line[], data: uPlot.AlignedData, look: Look, index: number | null): (number | null)[] {
  return mainColumns(lines, look).map((column) => {
    const values = Array.from(data[column] ?? []);
    if (index !== null) return values[index] ?? null;
    return values.findLast((one) => one !== null && one !== undefined) ?? null;
  });
}

const nameOf = (line: Line, alone: boolean): string => (alone ? line.label : `${line.run}, ${line.label}`);

export function Plot({ plot, runs, axis, look }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const drawn = useRef<uPlot | null>(null);
  const theme = useTheme();
  const [point, setPoint] = useState<number | null>(null);
  const [zoomed, setZoomed] = useState(false);
  const chosen = useRef<{ of: string; zoom: ReturnType<typeof zoomOf> }>({ of: "", zoom: null });
  const lines = useMemo(() => linesOf(plot, runs, axis), [plot, runs, axis]);
  const data = useMemo(() => dataOf(lines, look), [lines, look]);
  // What a new drawing is needed for; new values alone are put into the one that is there.
  const shape = JSON.stringify([theme, look, axis, lines.map((line) => [line.run, line.colour, line.label, line.lows !== null, line.xs.length > 40])]);
  // What a chosen part of the axis is a part of.
  const subject = JSON.stringify([axis, runs.map(({ id }) => id)]);
  const draw = useEffectEvent((box: HTMLElement) => {
    const frame = { width: box.clientWidth, height: HEIGHT, bounds: plot.bounds, whole: axis !== "epoch", onPoint: setPoint, onZoom: setZoomed };
    return new uPlot(optionsOf(lines, look, frame), data, box);
  });
  useLayoutEffect(() => {
    const box = place.current;
    if (!box) return undefined;
    const made = draw(box);
    drawn.current = made;
    if (chosen.current.zoom && chosen.current.of === subject) made.setScale("x", chosen.current.zoom);
    const resized = new ResizeObserver(() => made.setSize({ width: box.clientWidth, height: HEIGHT }));
    resized.observe(box);
    return () => {
      resized.disconnect();
      chosen.current = { of: subject, zoom: zoomOf(made) };
      made.destroy();
      drawn.current = null;
    };
  }, [shape, subject]);
  useEffect(() => {
    const plot = drawn.current;
    // A new drawing has them already, and where its axis is to begin and end is not settled yet.
    if (plot && plot.data !== data) putData(plot, data);
  }, [data]);

  const alone = runs.length === 1;
  const values = valuesAt(lines, data, look, point);
  const last = valuesAt(lines, data, look, null);
  const latest = lines.map((line, index) => (line.lost ? words.notANumber : shown(last[index])));
  const spoken = lines.map((line, index) => `${nameOf(line, alone)} ${latest[index]}`).join("; ");
  const at = point === null ? undefined : data[0][point];
  return (
    <figure className="plot">
      <figcaption>
        <h3>{plot.title}</h3>
        {zoomed && (
          <Button look="quiet" className="plot-all" onClick={showAll}>
            {words.showAll}
          </Button>
        )}
        <span className="plot-unit">{at === undefined ? plot.unit : `${words.xs[axis] ?? axis}: ${value(at)}`}</span>
      </figcaption>
      <div className="plot-canvas" ref={place} role="img" aria-label={words.figure(plot.title, spoken)} />
      <ul className="plot-legend" aria-hidden="true">
        {lines.map((line, index) => (
          <li key={`${line.run} ${line.label}`}>
            <span className={`swatch run-colour-${line.colour}${line.dashed ? " swatch-dashed" : ""}`} />
            <span className="plot-name" title={nameOf(line, alone)}>
              {alone ? line.label : `${shortened(line.run, LONGEST_NAME)}, ${line.label}`}
            </span>
            <b data-lost={line.lost || undefined}>{point === null ? latest[index] : shown(values[index])}</b>
          </li>
        ))}
      </ul>
      <PlotTable title={plot.title} axis={axis} lines={lines} names={lines.map((line) => nameOf(line, alone))} />
    </figure>
  );
}

const shown = (number: number | null | undefined): string => (number === null || number === undefined ? words.noValue : value(number));
