import { Plus, SlidersHorizontal, X } from "lucide-react";
import { useEffect, useState } from "react";
import { count, duration, rate } from "../../lib/format";
import { newSeed } from "../../lib/ids";
import { strings } from "../../lib/strings";
import { useTitle } from "../../lib/useTitle";
import { expectMarkdown, Markdown } from "../../markdown/Markdown";
import { Composer } from "../../parts/Composer";
import { Failed } from "../../parts/Failed";
import { ModelNotice } from "../../parts/ModelNotice";
import { ModelSelect } from "../../parts/ModelSelect";
import { Probabilities } from "../../parts/Probabilities";
import { expectSettings, SettingsDialog } from "../../parts/LazySettings";
import { useModels } from "../../store/models";
import { usePreferences } from "../../store/preferences";
import type { Settings } from "../../store/settings";
import { Button, IconButton } from "../../ui/Button";
import { askAgain, askAll, type Column, MOST_COLUMNS, newColumn, setColumns, stopAll, useColumns } from "./columns";

const words = strings.compare;

function ColumnText({ column }: { column: Column }) {
  const { text, tokens, state } = column;
  if (state === "empty") return <p className="column-empty">{words.empty}</p>;
  if (text === "" && state === "streaming") return <p className="waiting"><span className="dots" aria-hidden="true" /></p>;
  if (tokens.length > 0 && state !== "streaming") return <Probabilities tokens={tokens} />;
  return text === "" ? null : <Markdown text={text} growing={state === "streaming"} />;
}

/** What has come, and below it why there is no more. */
function ColumnBody({ column }: { column: Column }) {
  return (
    <>
      <ColumnText column={column} />
      {column.state === "stopped" && <p className="column-end">{strings.message.stopped}</p>}
      {column.failure && <Failed failure={column.failure} onRetry={() => askAgain(column)} />}
    </>
  );
}

/** How long and how fast an answer was, as far as it is known. */
function figuresOf({ metrics, text }: Column): string {
  if (!metrics || text === "") return "";
  return [
    metrics.tokens === null ? null : strings.message.tokens(count(metrics.tokens)),
    metrics.tokensPerSecond === null ? null : strings.message.rate(rate(metrics.tokensPerSecond)),
    metrics.ttftMs === null ? null : strings.message.ttft(duration(metrics.ttftMs)),
  ]
    .filter((part) => part !== null)
    .join(" · ");
}

function ColumnView({ column, at, all }: { column: Column; at: number; all: readonly Column[] }) {
  const figures = figuresOf(column);
  return (
    <section className="column" aria-label={words.column(at + 1)} aria-busy={column.state === "streaming"}>
      <header>
        <ModelSelect
          label={words.column(at + 1)}
          value={column.model}
          onChange={(model) => setColumns(all.map((one) => (one.id === column.id ? newColumn(model) : one)))}
        />
        {all.length > 2 && (
          <IconButton label={words.remove(column.model)} icon={<X />} onClick={() => setColumns(all.filter((one) => one.id !== column.id))} />
        )}
      </header>
      <div className="column-body" tabIndex={0} role="region" aria-label={column.model}>
        <ColumnBody column={column} />
      </div>
      {figures !== "" && <footer className="metrics">{figures}</footer>}
    </section>
  );
}

function useFirstColumns(): void {
  const cards = useModels((state) => state.cards);
  const columns = useColumns((state) => state.columns);
  useEffect(() => {
    const first = cards[0];
    if (columns.length === 0 && first) setColumns([newColumn(first.id), newColumn((cards[1] ?? first).id)]);
  }, [cards, columns.length]);
}

/** Says aloud that answers begin, and all of them once they have ended; nothing when columns come or go. */
function Announcer({ columns, answering }: { columns: readonly Column[]; answering: boolean }) {
  const [was, setWas] = useState(answering);
  const [said, setSaid] = useState("");
  if (was !== answering) {
    setWas(answering);
    const answers = columns.flatMap(({ model, text }, at) => (text === "" ? [] : [words.answerOf(at + 1, model, text)]));
    setSaid(answering ? words.writing : answers.join(" "));
  }
  return (
    <p className="visually-hidden" role="status">
      {said}
    </p>
  );
}

export function ComparePage() {
  useTitle(words.title);
  useFirstColumns();
  const { columns, question } = useColumns();
  const cards = useModels((state) => state.cards);
  const defaults = usePreferences((state) => state.defaults);
  const [settings, setSettings] = useState<Settings>(() => ({ ...defaults, seed: defaults.seed ?? newSeed() }));
  const [text, setText] = useState("");
  const [open, setOpen] = useState(false);
  const answering = columns.some((column) => column.state === "streaming");
  return (
    <div className="compare">
      <header className="compare-head">
        <h1>{words.title}</h1>
        <p className="page-lead">{cards.length === 1 ? words.needTwo : words.lead}</p>
        {question !== "" && <p className="bubble" dir="auto">{question}</p>}
      </header>
      <Announcer columns={columns} answering={answering} />
      <div className="columns">
        {columns.map((column, at) => (
          <ColumnView key={column.id} column={column} at={at} all={columns} />
        ))}
      </div>
      <div className="dock">
        <ModelNotice />
        <Composer
          text={text}
          onText={(draft) => {
            expectMarkdown();
            setText(draft);
          }}
          onSend={() => {
            askAll(text, settings);
            setText("");
          }}
          onStop={stopAll}
          answering={answering}
          placeholder={words.placeholder}
          sendLabel={words.ask}
          stopLabel={words.stop}
        >
          <IconButton label={strings.settings.open} icon={<SlidersHorizontal />} onPointerEnter={expectSettings} onFocus={expectSettings} onClick={() => setOpen(true)} />
          <span className="seed">
            {words.seed} {settings.seed}
          </span>
          {columns.length < MOST_COLUMNS && cards[0] && (
            <Button look="quiet" onClick={() => cards[0] && setColumns([...columns, newColumn((cards[columns.length] ?? cards[0]).id)])}>
              <Plus aria-hidden="true" />
              {words.add}
            </Button>
          )}
        </Composer>
        <p className="notice">{strings.notice}</p>
      </div>
      <SettingsDialog open={open} onClose={() => setOpen(false)} title={strings.settings.open} settings={settings} onChange={setSettings} />
    </div>
  );
}
