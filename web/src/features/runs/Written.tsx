import { FileText } from "lucide-react";
import type { Run } from "../../api/types";
import { strings } from "../../lib/strings";

const words = strings.runs;

/** What the run's model answered when it was evaluated. */
export function Samples({ samples }: Pick<Run, "samples">) {
  return (
    <section aria-labelledby="samples">
      <h2 id="samples">{words.samples}</h2>
      {samples.problem !== "" && <p className="stage-problem">{samples.problem}</p>}
      {samples.data.length === 0 ? (
        <p className="run-hint">{words.noSamples}</p>
      ) : (
        <>
          {samples.model !== "" && <p className="run-hint">{words.samplesOf(samples.model)}</p>}
          <ul className="samples">
            {samples.data.map((sample, index) => (
              <li key={index}>
                <dl>
                  <dt>{words.question}</dt>
                  <dd dir="auto">{sample.question}</dd>
                  <dt>{words.answer}</dt>
                  <dd dir="auto" className="sample-answer">
                    {sample.answer === "" ? <i>{words.nothing}</i> : sample.answer}
                  </dd>
                  {sample.expected !== "" && (
                    <>
                      <dt>{words.expected}</dt>
                      <dd dir="auto">{sample.expected}</dd>
                    </>
                  )}
                </dl>
              </li>
            ))}
          </ul>
        </>
      )}
    </section>
  );
}

/** The reports that lie in the run's folder; each opens by itself, where it can reach nothing of this page. */
export function Reports({ reports }: Pick<Run, "reports">) {
  return (
    <section aria-labelledby="reports">
      <h2 id="reports">{words.reports}</h2>
      {reports.length === 0 ? (
        <p className="run-hint">{words.noReports}</p>
      ) : (
        <ul className="reports">
          {reports.map((report) => (
            <li key={report.name}>
              <a className="button" href={report.address} target="_blank" rel="noopener noreferrer" aria-label={words.openReport(report.name)}>
                <FileText aria-hidden="true" />
                {report.name}
              </a>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}
