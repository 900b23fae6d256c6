import uPlot from "uplot";
import { rangeOf, tick, WHOLE, widthOf } from "./axes";
import { colourOf } from "./colours";
import { smoothed } from "./curve";
import type { Line, PlotKind } from "./plots";

/** How lines are drawn. */
export interface Look {
  log: boolean;
  /** From 0, as they are, to below 1. */
  smoothing: number;
}

const DASH = [6, 4];
const FONT = "12px system-ui, sans-serif";
const SPARSE = 40;

type Values = (number | null | undefined)[];

/** Validations are few, and each is a mean already: an average of them would lag behind what was measured. */
const smoothingOf = (line: Line, look: Look): number => (line.noisy ? look.smoothing : 0);

/** The columns that a line needs: the band's ends, the values as they are, the smoothed ones. */
function columnsOf(line: Line, look: Look): Values[] {
  const shown = (values: readonly (number | null)[]): Values => (look.log ? values.map((one) => (one !== null && one > 0 ? one : null)) : [...values]);
  const smoothing = smoothingOf(line, look);
  const main = smoothing > 0 ? smoothed(line.ys, smoothing) : line.ys;
  return [
    ...(line.lows && line.highs ? [shown(line.highs), shown(line.lows)] : []),
    ...(smoothing > 0 ? [shown(line.ys)] : []),
    shown(main),
  ];
}

/** All lines on one axis; where a line has no point, the others' points leave it as it is. */
export function dataOf(lines: readonly Line[], look: Look): uPlot.AlignedData {
  if (lines.length === 0) return [[]];
  return uPlot.join(
    lines.map((line) => [line.xs, ...columnsOf(line, look)] as uPlot.AlignedData),
    lines.map((line) => [1, ...columnsOf(line, look).map(() => 2)]),
  );
}

/** For each line, where its main column is in the data. */
export function mainColumns(lines: readonly Line[], look: Look): number[] {
  let at = 0;
  return lines.map((line) => (at += columnsOf(line, look).length));
}

function seriesOf(line: Line, look: Look): uPlot.Series[] {
  const stroke = colourOf(`--run-${line.colour}`);
  const hidden: uPlot.Series = { stroke: "transparent", width: 0, points: { show: false }, spanGaps: true };
  const faint: uPlot.Series = { stroke: translucent(stroke, 0.28), width: 1, points: { show: false }, spanGaps: true };
  const points = line.xs.length <= SPARSE ? { show: true, size: 5, fill: stroke } : { show: false };
  const main: uPlot.Series = { stroke, width: 1.75, points, spanGaps: true, ...(line.dashed ? { dash: DASH } : {}) };
  return [...(line.lows ? [hidden, hidden] : []), ...(smoothingOf(line, look) > 0 ? [faint] : []), main];
}

function bandsOf(lines: readonly Line[], look: Look): uPlot.Band[] {
  let at = 1;
  return lines.flatMap((line) => {
    const first = at;
    at += columnsOf(line, look).length;
    return line.lows ? [{ series: [first, first + 1] as [number, number], fill: translucent(colourOf(`--run-${line.colour}`), 0.14) }] : [];
  });
}

const translucent = (colour: string, alpha: number): string => colour.replace(/^rgb\((.*)\)$/u, `rgba($1, ${alpha})`);

interface Frame {
  width: number;
  height: number;
  bounds: PlotKind["bounds"];
  /** Whether there is nothing between two whole numbers of the horizontal axis. */
  whole: boolean;
  /** Hears which point the pointer is at. */
  onPoint: (index: number | null) => void;
  /** Hears whether the reader chose a part of the axis. */
  onZoom: (zoomed: boolean) => void;
}

interface Range {
  min: number;
  max: number;
}

/** The part of the horizontal axis that the reader chose; null where all of it is shown. */
export function zoomOf(plot: uPlot): Range | null {
  const { min, max } = plot.scales.x ?? {};
  const first = plot.data[0][0];
  const last = plot.data[0].at(-1);
  if (min == null || max == null || first === undefined || last === undefined) return null;
  return min > first || max < last ? { min, max } : null;
}

/** New values; what the reader chose to look at stays. */
export function putData(plot: uPlot, data: uPlot.AlignedData): void {
  const zoom = zoomOf(plot);
  plot.setData(data, zoom === null);
  if (zoom) plot.setScale("x", zoom);
}

const TOGETHER = "runs";

/** Shows all of every plot: a part is chosen in all of them at once. */
export function showAll(): void {
  for (const plot of uPlot.sync(TOGETHER).plots) plot.setData(plot.data);
}

/** A logarithmic axis has ticks without a label, which are null. */
const labels = (_: uPlot, ticks: readonly (number | null)[], __: number, ___: number, apart: number): string[] =>
  ticks.map((one) => (one === null ? "" : tick(one, apart)));

/** What a plot is made with. */
export function optionsOf(lines: readonly Line[], look: Look, { width, height, bounds, whole, onPoint, onZoom }: Frame): uPlot.Options {
  const ink = colourOf("--soft");
  const axis: uPlot.Axis = { stroke: ink, font: FONT, grid: { stroke: colourOf("--line"), width: 1 }, ticks: { show: false } };
  return {
    width,
    height,
    legend: { show: false },
    cursor: { y: false, points: { size: 7 }, sync: { key: TOGETHER }, drag: { x: true, y: false } },
    scales: { x: { time: false }, y: look.log ? { distr: 3 } : { range: (_, low, high) => (bounds ? [...bounds] : rangeOf(low, high)) } },
    axes: [
      { ...axis, values: labels, size: 28, ...(whole ? { incrs: WHOLE } : {}) },
      { ...axis, values: labels, size: (_, shown) => widthOf(shown) },
    ],
    series: [{}, ...lines.flatMap((line) => seriesOf(line, look))],
    bands: bandsOf(lines, look),
    hooks: {
      setCursor: [(plot) => onPoint(plot.cursor.idx ?? null)],
      setScale: [(plot, scale) => scale === "x" && onZoom(zoomOf(plot) !== null)],
    },
  };
}
