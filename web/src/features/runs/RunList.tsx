import { Search } from "lucide-react";
import { Link } from "wouter";
import type { RunCard, RunCards } from "../../api/types";
import { count } from "../../lib/format";
import { strings } from "../../lib/strings";
import { COLOURS } from "./colours";
import { RunName } from "./RunName";
import { addressOf, type Selection } from "./selection";

const words = strings.runs;
/** Characters of a name: three lines. */
const LONGEST_NAME = 60;

interface Props {
  found: RunCards | null;
  search: string;
  onSearch: (search: string) => void;
  selection: Selection;
  onSelect: (selection: Selection) => void;
}

function stateOf(card: RunCard): string {
  const state = words.states[card.state] ?? card.state;
  if (card.stage === null || card.state === "finished" || card.state === "damaged") return state;
  return `${state}, ${words.at(words.stageNames[card.stage] ?? card.stage)}`;
}

function Entry({ card, selection, onSelect }: { card: RunCard } & Pick<Props, "selection" | "onSelect">) {
  const current = card.id === selection.run;
  const place = current ? 0 : selection.beside.indexOf(card.id) + 1;
  const plotted = current || place > 0;
  const full = selection.beside.length >= COLOURS - 1;
  const toggle = () =>
    onSelect({ run: selection.run, beside: plotted ? selection.beside.filter((one) => one !== card.id) : [...selection.beside, card.id] });
  return (
    <li className="run-entry" data-current={current || undefined}>
      {current ? (
        <span className="run-here run-colour-0" />
      ) : (
        <input
          type="checkbox"
          className={plotted ? `run-colour-${place}` : ""}
          checked={plotted}
          disabled={selection.run === null || (full && !plotted)}
          aria-label={words.compare(card.id)}
          onChange={toggle}
        />
      )}
      <Link href={addressOf({ run: card.id, beside: selection.beside.filter((one) => one !== card.id) })} aria-current={current ? "true" : undefined}>
        <span className="run-name">
          <RunName id={card.id} most={LONGEST_NAME} />
        </span>
        <span className="run-state" data-state={card.state}>
          {stateOf(card)}
        </span>
        {card.problem !== "" && <span className="run-problem">{card.problem}</span>}
      </Link>
    </li>
  );
}

/** The runs of the folder: a name opens one, its box plots it beside the one that is open. */
export function RunList({ found, search, onSearch, selection, onSelect }: Props) {
  const cards = found?.data ?? [];
  return (
    <section className="run-list" aria-labelledby="run-list">
      <h2 id="run-list" className="visually-hidden">
        {words.list}
      </h2>
      <label className="search">
        <Search aria-hidden="true" />
        <input type="search" value={search} aria-label={words.search} placeholder={words.search} onChange={(event) => onSearch(event.target.value)} />
      </label>
      {found && cards.length === 0 && <p className="run-hint">{words.noMatch}</p>}
      <ul>
        {cards.map((card) => (
          <Entry key={card.id} card={card} selection={selection} onSelect={onSelect} />
        ))}
      </ul>
      {found !== null && found.left_out > 0 && <p className="run-hint">{words.leftOut(count(found.left_out))}</p>}
      {selection.beside.length >= COLOURS - 1 && <p className="run-hint">{words.most(COLOURS)}</p>}
    </section>
  );
}
