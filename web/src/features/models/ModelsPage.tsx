import { useLocation } from "wouter";
import type { ModelCard } from "../../api/types";
import { count, parameters } from "../../lib/format";
import { strings } from "../../lib/strings";
import { useTitle } from "../../lib/useTitle";
import { ModelNotice } from "../../parts/ModelNotice";
import { useModels } from "../../store/models";
import { usePreferences } from "../../store/preferences";
import { Button } from "../../ui/Button";
import { Facts } from "../../ui/Popover";

const words = strings.models;

function Card({ card }: { card: ModelCard }) {
  const [, navigate] = useLocation();
  const setModel = usePreferences((state) => state.setModel);
  const fact = (label: string, value: number | null, show = count): [string, string] | null => (value === null ? null : [label, show(value)]);
  return (
    <li className="card">
      <header>
        <h2>{card.id}</h2>
        <span className={`status status-${card.status}`}>{words.status[card.status] ?? card.status}</span>
      </header>
      {words.kinds[card.id] !== undefined && <p>{words.kinds[card.id]}</p>}
      <Facts
        facts={[
          fact(words.size, card.parameters, parameters),
          fact(words.context, card.context_length, (n) => strings.message.tokens(count(n))),
          fact(words.layers, card.layers),
          fact(words.heads, card.heads),
          fact(words.hidden, card.hidden_size),
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
  useTitle(words.title);
  const cards = useModels((state) => state.cards);
  return (
    <div className="page">
      <h1>{words.title}</h1>
      <p className="page-lead">{words.lead}</p>
      <ModelNotice />
      <ul className="cards">
        {cards.map((card) => (
          <Card key={card.id} card={card} />
        ))}
      </ul>
    </div>
  );
}
