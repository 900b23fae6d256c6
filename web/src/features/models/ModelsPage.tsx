import { useLocation } from "wouter";
import type { ModelCard, Welcome } from "../../api/types";
import { count } from "../../lib/format";
import { strings } from "../../lib/strings";
import { failureText, needsKey } from "../../parts/failures";
import { askForKey } from "../../parts/KeyDialog";
import { useModels } from "../../store/models";
import { usePreferences } from "../../store/preferences";
import { Button } from "../../ui/Button";
import { Facts } from "../../ui/Popover";

const words = strings.models;

function Card({ card, welcome }: { card: ModelCard; welcome: Welcome | null }) {
  const [, navigate] = useLocation();
  const setModel = usePreferences((state) => state.setModel);
  const sizes = welcome?.name === card.id ? welcome : null;
  return (
    <li className="card">
      <header>
        <h2>{card.id}</h2>
        <span className={`status status-${card.status}`}>{words.status[card.status] ?? card.status}</span>
      </header>
      {words.kinds[card.id] !== undefined && <p>{words.kinds[card.id]}</p>}
      <Facts
        facts={[
          sizes && [words.size, sizes.size],
          card.context_length === null ? null : [words.context, strings.message.tokens(count(card.context_length))],
          sizes && [words.layers, count(sizes.layers)],
          sizes && [words.heads, count(sizes.heads)],
          sizes && [words.hidden, count(sizes.hidden_size)],
        ]}
      />
      <Button
        disabled={card.status !== "ready"}
        onClick={() => {
          setModel(card.id);
          navigate("/");
        }}
      >
        {words.chat}
      </Button>
    </li>
  );
}

export function ModelsPage() {
  const { cards, welcome, failure } = useModels();
  return (
    <div className="page">
      <h1>{words.title}</h1>
      <p className="page-lead">{words.lead}</p>
      {failure && (
        <div className="failure" role="alert">
          <p>{failureText(failure)}</p>
          {needsKey(failure) && <Button onClick={askForKey}>{strings.errors.enterKey}</Button>}
        </div>
      )}
      <ul className="cards">
        {cards.map((card) => (
          <Card key={card.id} card={card} welcome={welcome} />
        ))}
      </ul>
    </div>
  );
}
