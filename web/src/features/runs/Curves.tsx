import { useState } from "react";
import type { Run } from "../../api/types";
import { count } from "../../lib/format";
import { strings } from "../../lib/strings";
import { Select } from "../../ui/Select";
import type { Look } from "./draw";
import { Plot } from "./Plot";
import { type Axis, plotsOf } from "./plots";
import { useCurves } from "./polling";
import { Training } from "./Training";

const words = strings.runs;
const AXES: Axis[] = ["step", "tokens", "epoch"];
const MOST_SMOOTHING = 0.98;
/** Places of the plots that are not here yet. */
const SKELETONS = [0, 1, 2, 3];

function nameOf(curve: string): string {
  const [stage = "", phase] = curve.split(":");
  const name = words.stageNames[stage] ?? stage;
  return phase === undefined ? name : words.phase(name, phase.replace("-", " "));
}

/** The curve that is looked at until somebody chooses one: what trains now, or what trained last, of all runs if they share one. */
function usual(runs: readonly (Run | undefined)[]): string | null {
  const [first, ...others] = runs;
  const running = first?.stages.find((stage) => stage.state === "running")?.stage;
  const mine = first?.curves ?? [];
  const shared = mine.filter((curve) => others.every((run) => run === undefined || run.curves.includes(curve)));
  const curves = shared.length > 0 ? shared : mine;
  return curves.findLast((curve) => curve.split(":")[0] === running) ?? curves.at(-1) ?? null;
}

interface Props {
  /** The one that is open first. */
  runs: readonly { id: string; run: Run | undefined }[];
}

/** The curves of one stage, of one run or of several over each other. */
export function Curves({ runs }: Props) {
  const [chosen, setChosen] = useState<string | null>(null);
  const [axis, setAxis] = useState<Axis>("step");
  const [look, setLook] = useState<Look>({ log: false, smoothing: 0 });
  const all = [...new Set(runs.flatMap(({ run }) => run?.curves ?? []))];
  const curve = chosen !== null && all.includes(chosen) ? chosen : usual(runs.map(({ run }) => run)) ?? all[0] ?? null;
  const coloured = runs.map(({ id, run }, colour) => ({ id, colour, run }));
  const having = coloured.filter(({ run }) => curve !== null && run?.curves.includes(curve));
  const without = runs.filter(({ run }) => run && curve !== null && !run.curves.includes(curve)).map(({ id }) => id);
  const { of, drawn, current } = useCurves(having, curve);
  const plots = plotsOf(drawn.map((one) => one.curve));
  const left = Math.max(0, ...drawn.map((one) => one.curve.left));
  const skipped = drawn.reduce((sum, one) => sum + one.curve.skipped, 0);
  const thinned = drawn.some((one) => [...one.curve.tables.values()].some((table) => table.width > 1));
  if (runs[0]?.run && curve === null) return <p className="run-hint">{words.noCurves}</p>;
  return (
    <>
      <section aria-labelledby="curves">
        <div className="curves-head">
          <h2 id="curves">{words.curves}</h2>
          <Select label={words.curve} value={curve} options={all.map((one) => ({ value: one, label: nameOf(one) }))} onChange={setChosen} />
          <Select label={words.x} value={axis} options={AXES.map((one) => ({ value: one, label: words.xs[one] ?? one }))} onChange={(next) => setAxis(next as Axis)} />
          <label className="curves-smoothing">
            {words.smoothing}
            <input
              type="range"
              min={0}
              max={MOST_SMOOTHING}
              step={0.02}
              value={look.smoothing}
              onChange={(event) => setLook({ ...look, smoothing: Number(event.target.value) })}
            />
            <output>{look.smoothing.toFixed(2)}</output>
          </label>
          <label className="curves-log">
            <input type="checkbox" checked={look.log} onChange={(event) => setLook({ ...look, log: event.target.checked })} />
            {words.logScale}
          </label>
        </div>
        {without.length > 0 && <p className="run-hint">{words.without(without.join(", "))}</p>}
        {left > 0 && <p className="run-hint">{words.reading(count(Math.ceil(left / 1e6)))}</p>}
        {skipped > 0 && <p className="run-hint">{words.skipped(count(skipped))}</p>}
        {drawn.map(
          (one) =>
            one.curve.problem !== "" && (
              <p key={one.id} className="stage-problem">
                {one.id}: {one.curve.problem}
              </p>
            ),
        )}
        {thinned && <p className="run-hint">{words.thinned}</p>}
        <div className="plots" aria-busy={!current}>
          {of === null && SKELETONS.map((one) => <div key={one} className="plot-skeleton" />)}
          {plots.map((plot) => (
            <Plot key={`${of} ${plot.id}`} plot={plot} runs={drawn} axis={axis} look={look} />
          ))}
        </div>
      </section>
      {runs[0] && curve !== null && <Training run={runs[0].id} curve={curve} />}
    </>
  );
}
