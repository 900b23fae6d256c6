import { Circle, CircleAlert, CircleCheck, CircleDashed, CirclePause, LoaderCircle } from "lucide-react";
import type { ReactNode } from "react";
import type { RunFact, RunStage } from "../../api/types";
import { percent } from "../../lib/format";
import { strings } from "../../lib/strings";
import { time, value, when } from "./numbers";

const words = strings.runs;
const ICONS: Record<RunStage["state"], ReactNode> = {
  "to do": <Circle aria-hidden="true" />,
  running: <LoaderCircle className="turning" aria-hidden="true" />,
  stopped: <CirclePause aria-hidden="true" />,
  finished: <CircleCheck aria-hidden="true" />,
  damaged: <CircleAlert aria-hidden="true" />,
  "not in the recipe": <CircleDashed aria-hidden="true" />,
};
const SHOWN_FACTS = 3;
/** An evaluation is its figures; of other stages a few tell enough. */
const SHOWN_OF_EVALUATION = 10;

function factName({ name, about }: RunFact): string {
  const known = words.facts[name] ?? name;
  return about === "" ? known : words.factAbout(known, about);
}

const factValue = (fact: RunFact): string => (fact.of === null ? value(fact.value) : words.rightOf(value(fact.value), value(fact.of)));

function timeOf(stage: RunStage, now: Date): string {
  const parts = [
    words.stageStates[stage.state] ?? stage.state,
    stage.ended === null ? null : when(stage.ended, now),
    stage.seconds === null ? null : words.took(time(stage.seconds)),
    stage.state === "running" && stage.began !== null ? words.began(when(stage.began, now)) : null,
  ];
  return parts.filter((part) => part !== null).join(", ");
}

function Stage({ stage, now }: { stage: RunStage; now: Date }) {
  const name = words.stageNames[stage.stage] ?? stage.stage;
  return (
    <li className="stage" data-state={stage.state}>
      {ICONS[stage.state]}
      <p className="stage-name">{name}</p>
      <p className="stage-state">{timeOf(stage, now)}</p>
      <div className="stage-facts">
        {stage.progress !== null && (
          <>
            <progress value={stage.progress} aria-label={words.progress(name)} />
            <span>{words.done(percent(stage.progress))}</span>
          </>
        )}
        {stage.facts.slice(0, stage.stage === "evaluate" ? SHOWN_OF_EVALUATION : SHOWN_FACTS).map((fact, index) => (
          <span key={index}>
            {factName(fact)} <b>{factValue(fact)}</b>
          </span>
        ))}
        {stage.problem !== "" && <p className="stage-problem">{stage.problem}</p>}
      </div>
    </li>
  );
}

/** The pipeline as a picture: its stages in their order, and how far each is. */
export function Stages({ stages, now }: { stages: readonly RunStage[]; now: Date }) {
  return (
    <section aria-labelledby="stages">
      <h2 id="stages">{words.stages}</h2>
      <ol className="stages">
        {stages.map((stage) => (
          <Stage key={stage.stage} stage={stage} now={now} />
        ))}
      </ol>
    </section>
  );
}
