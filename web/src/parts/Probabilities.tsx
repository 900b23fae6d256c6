import { useState } from "react";
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

function Alternatives({ choice }: { choice: TokenChoice }) {
  return (
    <>
      <strong dir="auto">{shown(choice.token)}</strong> {strings.message.chance(percent(Math.exp(choice.logprob)))}
      {choice.top_logprobs.length > 0 && (
        <ol className="alternatives">
          {choice.top_logprobs.map((other) => (
            <li key={other.token}>
              <span dir="auto">{shown(other.token)}</span>
              <meter min={0} max={1} value={Math.exp(other.logprob)} aria-label={other.token} />
              <span>{percent(Math.exp(other.logprob))}</span>
            </li>
          ))}
        </ol>
      )}
    </>
  );
}

/** An answer's tokens, coloured by how sure the model was; hover, focus or touch shows the others. */
export function Probabilities({ tokens }: { tokens: TokenChoice[] }) {
  const [at, setAt] = useState<number | null>(null);
  const choice = at === null ? undefined : tokens[at];
  return (
    <div className="probabilities">
      <p dir="auto">
        {tokens.map((token, index) => (
          <button
            key={index}
            type="button"
            className={`token token-${levelOf(Math.exp(token.logprob))}`}
            aria-pressed={at === index}
            onPointerEnter={() => setAt(index)}
            onFocus={() => setAt(index)}
            onClick={() => setAt(index)}
          >
            {token.token}
          </button>
        ))}
      </p>
      <div className="token-details" aria-live="polite">
        {choice ? <Alternatives choice={choice} /> : strings.message.instead}
      </div>
    </div>
  );
}
