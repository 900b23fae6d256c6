import type { ModelCard } from "../../api/types";
import { count, parameters } from "../../lib/format";
import { strings } from "../../lib/strings";

const words = strings.welcome;

interface Props {
  card: ModelCard | undefined;
  onAsk: (question: string) => void;
}

/** Its title and lead stand in index.html too, so that the first frame has them. */
export function Welcome({ card, onAsk }: Props) {
  const known = card?.parameters && card.context_length ? words.model(card.id, parameters(card.parameters), count(card.context_length)) : null;
  return (
    <div className="welcome">
      <img src="/favicon.svg" alt="" width="56" height="56" />
      <h1>{words.title}</h1>
      <p className="welcome-lead">{words.lead}</p>
      <p className="welcome-model">{known ?? "\u00a0"}</p>
      <ul className="suggestions" aria-label={words.suggestions}>
        {words.questions.map((question) => (
          <li key={question.text}>
            <button type="button" onClick={() => onAsk(question.text)}>
              <small>{question.topic}</small>
              {question.text}
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}
