import { count } from "../../lib/format";
import { strings } from "../../lib/strings";
import { useModels } from "../../store/models";

const words = strings.welcome;

export function Welcome({ onAsk }: { onAsk: (question: string) => void }) {
  const welcome = useModels((state) => state.welcome);
  return (
    <div className="welcome">
      <img src="/favicon.svg" alt="" width="56" height="56" />
      <h1>{words.title}</h1>
      <p className="welcome-lead">{welcome ? words.lead(welcome.name, welcome.size, count(welcome.context)) : words.leadShort}</p>
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
