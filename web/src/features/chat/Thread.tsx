import { ArrowDown } from "lucide-react";
import { memo, useCallback, useEffect, useLayoutEffect, useRef, useState, type KeyboardEvent, type WheelEvent } from "react";
import { Virtualizer } from "virtua";
import { count } from "../../lib/format";
import { strings } from "../../lib/strings";
import type { Message } from "../../store/records";
import { IconButton } from "../../ui/Button";
import { Answer } from "./Answer";
import { Question } from "./Question";

export interface Actions {
  edit: (message: Message, text: string) => void;
  /** The answer in the reader's own words, as another version of it. */
  rewrite: (message: Message, text: string) => void;
  regenerate: (message: Message) => void;
  continue: (message: Message) => void;
  copy: (message: Message) => void;
  fork: (message: Message) => void;
  remove: (message: Message) => void;
  turnedRef: { current: -1 | 1 | null };
}

interface RowProps {
  message: Message;
  siblings: readonly Message[];
  at: number;
  all: number;
  actions: Actions;
}

/** One message. Its record, neighbours and actions keep their identity, so it is drawn once. */
const Row = memo(function Row({ message, siblings, at, all, actions }: RowProps) {
  const { role, status } = message;
  const name = role === "user" ? strings.message.you : (message.model ?? strings.app);
  return (
    <article className={`message message-${role}`} aria-label={name} aria-posinset={at + 1} aria-setsize={all} aria-busy={status === "streaming"} data-id={message.id}>
      {role === "assistant" && <header className="message-name">{name}</header>}
      {role === "user" ? (
        <Question message={message} siblings={siblings} actions={actions} />
      ) : (
        <Answer message={message} siblings={siblings} last={at === all - 1} actions={actions} />
      )}
    </article>
  );
});

const NEAR = 64;

const UP = new Set(["ArrowUp", "PageUp", "Home"]);
/** Milliseconds in which a pull to the end that was under way still moves what the reader has let go of. */
const SETTLES = 300;

/** Follows the end while new text comes, until the reader scrolls up.
 *
 * A wheel turned up, a key or a finger lets go at once: were its place alone looked at, text that comes quickly would
 * pull a slow scroll back to the end before it is far enough away to be seen.
 */
function useFollow() {
  const scroller = useRef<HTMLDivElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const following = useRef(true);
  const lastTop = useRef(0);
  const turnedUp = useRef(-Infinity);
  const [away, setAway] = useState(false);
  const pull = useCallback(() => {
    const box = scroller.current;
    if (!box) return;
    box.scrollTop = box.scrollHeight;
    // The event that this makes comes later, perhaps after a wheel has let go, and is no movement of the reader's.
    lastTop.current = box.scrollTop;
  }, []);
  const toEnd = useCallback(() => {
    following.current = true;
    setAway(false);
    pull();
  }, [pull]);
  const letGo = () => {
    const box = scroller.current;
    if (box && box.scrollTop > 0) following.current = false;
  };
  const turnUp = () => {
    turnedUp.current = performance.now();
    letGo();
  };
  const onScroll = () => {
    const box = scroller.current;
    if (!box) return;
    const distance = box.scrollHeight - box.scrollTop - box.clientHeight;
    const moved = box.scrollTop - lastTop.current;
    const settled = performance.now() - turnedUp.current > SETTLES;
    if (distance < NEAR && moved > 0 && settled) following.current = true;
    else if (distance >= NEAR && moved < -1) following.current = false;
    lastTop.current = box.scrollTop;
    setAway(!following.current && distance >= NEAR);
  };
  const handlers = {
    onScroll,
    onWheel: (event: WheelEvent) => {
      if (event.deltaY < 0) turnUp();
      else turnedUp.current = -Infinity;
    },
    onKeyDown: (event: KeyboardEvent) => {
      if (UP.has(event.key) && !(event.target instanceof HTMLTextAreaElement)) turnUp();
    },
    onTouchMove: letGo,
  };
  useEffect(() => {
    const box = scroller.current;
    const inner = content.current;
    if (!box || !inner) return;
    const observer = new ResizeObserver(() => {
      if (following.current) pull();
    });
    observer.observe(inner);
    observer.observe(box);
    return () => observer.disconnect();
  }, [pull]);
  return { scroller, content, away, toEnd, handlers };
}

interface Props {
  path: Message[];
  versions: ReadonlyMap<string | null, Message[]>;
  /** Index of the first message that the model saw for the newest answer, and tokens before it. */
  unseen: { before: number; tokens: number } | null;
  actions: Actions;
}

const ALONE: readonly Message[] = [];

export function Thread({ path, versions, unseen, actions }: Props) {
  const { scroller, content, away, toEnd, handlers } = useFollow();
  const last = path.at(-1);
  const streaming = last?.status === "streaming";
  useLayoutEffect(toEnd, [toEnd, last?.id]);
  return (
    <div className="thread">
      <div className="scroller" ref={scroller} {...handlers} tabIndex={0} role="region" aria-label={strings.nav.label}>
        <div ref={content} className="thread-inner" role="feed" aria-busy={streaming}>
          <Virtualizer scrollRef={scroller} bufferSize={600}>
            {path.map((message, at) => {
              const siblings = versions.get(message.parent) ?? ALONE;
              return (
                <div key={message.id} className="row">
                  {unseen?.before === at && at > 0 && (
                    <p className="unseen" role="note">
                      <span>{strings.context.leftOut(count(unseen.tokens))}</span>
                    </p>
                  )}
                  <Row message={message} siblings={siblings} at={at} all={path.length} actions={actions} />
                </div>
              );
            })}
          </Virtualizer>
        </div>
      </div>
      {away && <IconButton className="jump" look="plain" label={strings.message.jump} icon={<ArrowDown />} onClick={toEnd} />}
    </div>
  );
}
