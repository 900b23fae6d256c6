import { count } from "../lib/format";
import { strings } from "../lib/strings";
import { Facts, Popover } from "../ui/Popover";

interface Props {
  used: number | null;
  all: number | null;
  /** Tokens that the answer may have at most, by the settings. */
  longest: number | undefined;
}

const words = strings.context;

/** The share of the context that the server leaves to the answer: the oldest turns make way for it. */
const LEFT_TO_ANSWERS = 0.25;

/** How full the model's context is. */
export function ContextBar({ used, all, longest }: Props) {
  if (used === null || all === null) {
    // As wide as later, so that nothing moves when the model is ready.
    return (
      <span className="context" title={words.unknown}>
        <span className="context-track" aria-hidden="true" />
        <span className="context-text" aria-hidden="true">
          {words.of("…", "…")}
        </span>
        <span className="visually-hidden">{words.unknown}</span>
      </span>
    );
  }
  const least = Math.min(Math.floor(all * LEFT_TO_ANSWERS), longest ?? all);
  const level = used >= all ? "over" : used > all - least ? "high" : "fine";
  const text = words.of(count(used), count(all));
  return (
    <Popover
      title={words.title}
      trigger={
        <button type="button" className={`context context-${level}`}>
          <meter className="visually-hidden" min={0} max={all} value={Math.min(used, all)} aria-label={words.label}>
            {text}
          </meter>
          <span className="context-track" aria-hidden="true">
            <span className="context-fill" style={{ inlineSize: `${Math.min(100, (used / all) * 100)}%` }} />
          </span>
          <span className="context-text">{text}</span>
        </button>
      }
    >
      <Facts
        facts={[
          [words.used, count(used)],
          [words.room, level === "fine" ? count(all - used) : words.orMore(count(least))],
          [words.all, count(all)],
        ]}
      />
      {level !== "fine" && <p className="popover-note">{words.full}</p>}
    </Popover>
  );
}
