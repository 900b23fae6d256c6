import { strings } from "../../lib/strings";
import type { Curve, Table } from "./curve";

const words = strings.runs;

/** One number of one kind of line; `dashed` tells it from the others of its plot. */
interface Source {
  kind: "train" | "validation";
  metric: string;
  label: string;
  dashed: boolean;
}

export interface PlotKind {
  id: string;
  title: string;
  unit: string;
  sources: Source[];
  /** Where the vertical axis ends, whatever the values are. */
  bounds?: readonly [number, number];
}

const source = (kind: Source["kind"], metric: string, label: string, dashed = false): Source => ({ kind, metric, label, dashed });
const { series } = words;

const PLOTS: PlotKind[] = [
  { id: "loss", ...words.plots.loss, sources: [source("train", "loss", series.train), source("validation", "loss", series.validation, true)] },
  { id: "perplexity", ...words.plots.perplexity, sources: [source("train", "perplexity", series.train), source("validation", "perplexity", series.validation, true)] },
  { id: "bits", ...words.plots.bits, sources: [source("validation", "bits_per_byte", series.validation)] },
  { id: "kl", ...words.plots.kl, sources: [source("train", "kl", series.train)] },
  { id: "learning_rate", ...words.plots.learning_rate, sources: [source("train", "learning_rate", series.train)] },
  { id: "grad_norm", ...words.plots.grad_norm, sources: [source("train", "grad_norm", series.train)] },
  { id: "speed", ...words.plots.speed, sources: [source("train", "tokens_per_second", series.train)] },
  { id: "use", ...words.plots.use, sources: [source("train", "cpu_percent", series.cpu), source("train", "gpu_percent", series.gpu, true)], bounds: [0, 100] },
  { id: "mfu", ...words.plots.mfu, sources: [source("train", "mfu", series.train)] },
  { id: "memory", ...words.plots.memory, sources: [source("train", "memory_mb", series.process), source("train", "gpu_memory_mb", series.gpuMemory, true)] },
];
/** Shown in the plots above, or of no use in one: an axis, and what the machine can do at most. */
const KNOWN = new Set([...PLOTS.flatMap((plot) => plot.sources.map((one) => one.metric)), "epoch", "tokens", "peak_flops"]);

/** What there is to plot, whatever a run has logged. */
export function plotsOf(curves: readonly Curve[]): PlotKind[] {
  const has = ({ kind, metric }: Source): boolean => curves.some((curve) => curve.tables.get(kind)?.columns.get(metric)?.means.some((value) => value !== null));
  const known = PLOTS.map((plot) => ({ ...plot, sources: plot.sources.filter(has) })).filter((plot) => plot.sources.length > 0);
  const names = new Set(curves.flatMap((curve) => [...(curve.tables.get("train")?.columns.keys() ?? [])]).filter((name) => !KNOWN.has(name)));
  const others = [...names].map((name) => ({ id: `other:${name}`, title: name, unit: words.otherUnit, sources: [source("train", name, series.train)] }));
  return [...known, ...others.filter((plot) => plot.sources.some(has))];
}

/** One line of a plot. */
export interface Line {
  run: string;
  /** Which of the colours. */
  colour: number;
  label: string;
  dashed: boolean;
  /** Of single steps, not of validations. */
  noisy: boolean;
  xs: number[];
  ys: (number | null)[];
  lows: (number | null)[] | null;
  highs: (number | null)[] | null;
  /** Whether its last value was not a number: a training that has failed. */
  lost: boolean;
}

/** A training measures these in every line of their kind, so one without is not a number. */
const ALWAYS = new Set(["loss", "perplexity", "bits_per_byte", "kl", "grad_norm"]);

export type Axis = "step" | "tokens" | "epoch";

function axisOf(table: Table, axis: Axis): (number | null)[] {
  return axis === "step" ? table.steps : (table.columns.get(axis)?.means ?? []);
}

/** The lines of a plot, in the order of the runs; points without a place on the axis are left out. */
export function linesOf(plot: PlotKind, runs: readonly { id: string; colour: number; curve: Curve }[], axis: Axis): Line[] {
  return runs.flatMap(({ id, colour, curve }) =>
    plot.sources.flatMap(({ kind, metric, label, dashed }): Line[] => {
      const table = curve.tables.get(kind);
      const column = table?.columns.get(metric);
      if (!table || !column) return [];
      const places = axisOf(table, axis);
      const kept = places.flatMap((place, index) => (place === null || (index > 0 && place <= (places[index - 1] ?? -1)) ? [] : [index]));
      const pick = <T>(values: readonly T[]): T[] => kept.map((index) => values[index] as T);
      return [
        {
          run: id,
          colour,
          label,
          dashed,
          noisy: kind === "train",
          xs: pick(places) as number[],
          ys: pick(column.means),
          lows: column.lows && pick(column.lows),
          highs: column.highs && pick(column.highs),
          lost: ALWAYS.has(metric) && column.means.at(-1) === null,
        },
      ];
    }),
  );
}
