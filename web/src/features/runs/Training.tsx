import { ChevronLeft, ChevronRight } from "lucide-react";
import { useState } from "react";
import type { RunWritten } from "../../api/types";
import { count } from "../../lib/format";
import { strings } from "../../lib/strings";
import { IconButton } from "../../ui/Button";
import { useWritten } from "./polling";

const words = strings.runs;

interface StepsProps {
  steps: readonly number[];
  index: number;
  onStep: (step: number | null) => void;
}

/** Which validation is looked at. The last one stays the last, while a run trains. */
function Steps({ steps, index, onStep }: StepsProps) {
  const last = steps.length - 1;
  const go = (to: number) => onStep(to >= last ? null : (steps[to] ?? null));
  const place = words.atStep(count(steps[index] ?? 0), count(index + 1), count(steps.length));
  return (
    <div className="written-steps">
      {last > 0 && (
        <>
          <IconButton label={words.earlier} icon={<ChevronLeft aria-hidden="true" />} disabled={index === 0} onClick={() => go(index - 1)} />
          <input
            type="range"
            min={0}
            max={last}
            step={1}
            value={index}
            aria-label={words.validation}
            aria-valuetext={place}
            onChange={(event) => go(Number(event.target.value))}
          />
          <IconButton label={words.later} icon={<ChevronRight aria-hidden="true" />} disabled={index === last} onClick={() => go(index + 1)} />
        </>
      )}
      <output aria-live="polite">{place}</output>
    </div>
  );
}

function Texts({ samples }: Pick<RunWritten, "samples">) {
  return (
    <ul className="samples">
      {samples.map((sample, index) => (
        <li key={index}>
          <dl>
            <dt>{words.givenTo}</dt>
            <dd dir="auto">{sample.question}</dd>
            <dt>{words.wrote}</dt>
            <dd dir="auto" className="sample-answer">
              {sample.answer === "" ? <i>{words.nothing}</i> : sample.answer}
            </dd>
            {sample.expected !== "" && (
              <>
                <dt>{words.goesOn}</dt>
                <dd dir="auto">{sample.expected}</dd>
              </>
            )}
          </dl>
        </li>
      ))}
    </ul>
  );
}

/** What the model of a curve wrote at each validation; that of the one before stays until it is here. */
export function Training({ run, curve }: { run: string; curve: string }) {
  const of = JSON.stringify([run, curve]);
  const [chosen, setChosen] = useState<{ of: string; step: number | null }>({ of, step: null });
  const step = chosen.of === of ? chosen.step : null;
  const setStep = (next: number | null) => setChosen({ of, step: next });
  const { value: written } = useWritten(run, curve, step);
  if (!written || (written.steps.length === 0 && written.problem === "")) return null;
  const index = written.steps.findIndex((one) => one === (step ?? written.step));
  return (
    <section aria-labelledby="written">
      <div className="curves-head">
        <h2 id="written">{words.written}</h2>
        {written.steps.length > 0 && <Steps steps={written.steps} index={Math.max(0, index)} onStep={setStep} />}
      </div>
      <p className="run-hint">{words.writtenLead}</p>
      {written.problem !== "" && <p className="stage-problem">{written.problem}</p>}
      <Texts samples={written.samples} />
    </section>
  );
}
