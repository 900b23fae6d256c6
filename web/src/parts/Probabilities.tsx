import { useId, useState, type KeyboardEvent } from "react";
import type { TokenChoice } from "../api/types";
import { percent } from "../lib/format";
import { strings } from "../lib/strings";

/** Five levels, from sure to a guess; the number is said too, so that colour is never alone. */
export function levelOf(probability: number): 1 | 2 | 3 | 4 | 5 {
  if (probability >= 0.9) return 1;
  if (probability >= 0.6) return 2;
  if (probability >= 0.3) return 3;
  return probability >= 0.1 ? 4 : 5;
}

const shown = (token: string): string => token.replaceAll("\n", "↵").replaceAll(" ", "·") || "∅";
const chanceOf = (choice: { logprob: number }): string => percent(Math.exp(choice.logprob));

/** What the colours stand for. */
function Levels() {
  return (
    <p className="levels">
      {strings.message.levels}
      {strings.message.levelNames.map((name, at) => (
        <span key={name} className={`token-${at + 1}`}>
          {name}
        </span>
      ))}
    </p>
  );
}

function Alternatives({ choice }: { choice: TokenChoice }) {
  return (
    <>
      <strong dir="auto">{shown(choice.token)}</strong> {strings.message.chance(chanceOf(choice))}
      {choice.top_logprobs.length > 0 && (
        <ol className="alternatives">
          {choice.top_logprobs.map((other, at) => (
            <li key={at}>
              <span dir="auto">{shown(other.token)}</span>
              <meter min={0} max={1} value={Math.exp(other.logprob)} aria-label={shown(other.token)} />
              <span>{chanceOf(other)}</span>
            </li>
          ))}
        </ol>
      )}
    </>
  );
}

const STEPS: Record<string, (at: number, last: number) => number> = {
  ArrowRight: (at) => at + 1,
  ArrowLeft: (at) => at - 1,
  Home: () => 0,
  End: (_, last) => last,
};

/** An answer's tokens, coloured by how sure the model was; hover, arrow keys or touch shows the others. */
interface Props {
  tokens: TokenChoice[];
  /** Text before them, of which no tokens are known. */
  before?: string;
}

export function Probabilities({ tokens, before = "" }: Props) {
  const id = useId();
  const [at, setAt] = useState<number | null>(null);
  const choice = at === null ? undefined : tokens[at];
  const onKey = (event: KeyboardEvent) => {
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    setAt(Math.max(0, Math.min(tokens.length - 1, step(at ?? -1, tokens.length - 1))));
  };
  return (
    <div className="probabilities">
      {before !== "" && (
        <div className="untold">
          <p className="as-written" dir="auto">
            {before}
          </p>
          <small>{strings.message.unknownTokens}</small>
        </div>
      )}
      <div
        className="tokens"
        dir="auto"
        role="listbox"
        tabIndex={0}
        aria-label={strings.message.tokenList}
        aria-orientation="horizontal"
        aria-activedescendant={at === null ? undefined : `${id}-${at}`}
        onKeyDown={onKey}
        onFocus={() => setAt(at ?? 0)}
      >
        {tokens.map((token, index) => (
          <span
            key={index}
            id={`${id}-${index}`}
            role="option"
            aria-selected={at === index}
            aria-label={`${shown(token.token)} ${strings.message.chance(chanceOf(token))}`}
            className={`token token-${levelOf(Math.exp(token.logprob))}`}
            onPointerEnter={() => setAt(index)}
            onClick={() => setAt(index)}
          >
            {token.token}
          </span>
        ))}
      </div>
      <div className="token-details">{choice ? <Alternatives choice={choice} /> : strings.message.instead}</div>
      <Levels />
    </div>
  );
}
