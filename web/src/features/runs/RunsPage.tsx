import { useState } from "react";
import type { Run } from "../../api/types";
import { strings } from "../../lib/strings";
import { useTitle } from "../../lib/useTitle";
import { failureText, needsKey } from "../../parts/failures";
import { askForKey } from "../../parts/KeyDialog";
import type { Failure } from "../../store/records";
import { Button } from "../../ui/Button";
import { Curves } from "./Curves";
import { useRunDetails, useRuns } from "./polling";
import { RunList } from "./RunList";
import "./runs.css";
import { useSelection } from "./selection";
import { Stages } from "./Stages";
import { Reports, Samples } from "./Written";

const words = strings.runs;

function Trouble({ failure, shown }: { failure: Failure; shown: boolean }) {
  return (
    <div className="failure" role="alert">
      <p>{failure.status === 0 && shown ? words.offline : failure.status === 404 ? words.gone : failureText(failure)}</p>
      {needsKey(failure) && <Button onClick={askForKey}>{strings.errors.enterKey}</Button>}
    </div>
  );
}

function Details({ run, beside }: { run: Run; beside: readonly { id: string; run: Run | undefined }[] }) {
  return (
    <>
      <header className="run-head">
        <h2>{run.id}</h2>
        <span className="run-state" data-state={run.state}>
          {words.states[run.state] ?? run.state}
        </span>
        {run.description !== "" && <p className="run-description">{run.description}</p>}
        {run.problem !== "" && (
          <p className="stage-problem">
            {run.problem}. {run.state === "damaged" && run.advice !== null && words.advice[run.advice]}
          </p>
        )}
      </header>
      {run.stages.length > 0 && (
        <>
          <Stages stages={run.stages} now={new Date()} />
          <Curves runs={[{ id: run.id, run }, ...beside]} />
          <Samples samples={run.samples} />
          <Reports reports={run.reports} />
        </>
      )}
    </>
  );
}

function Empty() {
  return (
    <section className="runs-empty">
      <p>{words.none}</p>
      <pre>
        <code>{words.noneCommand}</code>
      </pre>
      <p className="run-hint">{words.noneThen}</p>
    </section>
  );
}

export function RunsPage() {
  const [search, setSearch] = useState("");
  const [chosen, select] = useSelection();
  const list = useRuns(search);
  const first = list.value?.data[0]?.id ?? null;
  const [initial, setInitial] = useState<string | null>(null);
  if (initial === null && first !== null) setInitial(first);
  const selection = { ...chosen, run: chosen.run ?? initial };
  const names = [...(selection.run === null ? [] : [selection.run]), ...selection.beside];
  const { runs, failures } = useRunDetails(names);
  const run = selection.run === null ? undefined : runs.get(selection.run);
  const runFailure = selection.run === null ? undefined : failures.get(selection.run);
  const failure = list.failure ?? runFailure ?? null;
  // The one that was open stays until the next is here.
  const [before, setBefore] = useState<Run | null>(null);
  if (run && run !== before) setBefore(run);
  const shown = run ?? (runFailure ? null : before);
  useTitle(shown ? `${shown.id} – ${words.title}` : words.title);
  return (
    <div className="page runs-page">
      <h1>{words.title}</h1>
      <p className="page-lead">{words.lead}</p>
      {failure && <Trouble failure={failure} shown={list.value !== null} />}
      {list.value && list.value.data.length === 0 && search === "" ? (
        <Empty />
      ) : (
        <div className="runs-columns">
          <RunList found={list.value} search={search} onSearch={setSearch} selection={selection} onSelect={select} />
          <div className="run-details" aria-busy={!run && !failure}>
            {shown && <Details run={shown} beside={selection.beside.filter((id) => id !== shown.id).map((id) => ({ id, run: runs.get(id) }))} />}
            {!shown && !failure && <p className="run-hint">{strings.loadingPage}</p>}
          </div>
        </div>
      )}
    </div>
  );
}
