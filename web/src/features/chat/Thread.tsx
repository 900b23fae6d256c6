import { ArrowDown } from "lucide-react";
import { memo, useCallback, useEffect, useLayoutEffect, useRef, useState } from "react";
import { Virtualizer } from "virtua";
import { count } from "../../lib/format";
import { strings } from "../../lib/strings";
import type { Message } from "../../store/records";
import { IconButton } from "../../ui/Button";
import { Answer } from "./Answer";
import { Question } from "./Question";

export interface Actions {
  edit: (message: Message, text: string) => void;
  regenerate: (message: Message) => void;
  continue: (message: Message) => void;
  copy: (message: Message) => void;
  fork: (message: Message) => void;
  remove: (message: Message) => void;
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

/** Follows the end while new text comes, until the reader scrolls up. */
function useFollow() {
  const scroller = useRef<HTMLDivElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const following = useRef(true);
  const lastTop = useRef(0);
  const [away, setAway] = useState(false);
  const toEnd = useCallback(() => {
    const box = scroller.current;
    following.current = true;
    setAway(false);
    if (box) box.scrollTop = box.scrollHeight;
  }, []);
  const onScroll = () => {
    const box = scroller.current;
    if (!box) return;
    const distance = box.scrollHeight - box.scrollTop - box.clientHeight;
    if (distance < NEAR) following.current = true;
    else if (box.scrollTop < lastTop.current - 1) following.current = false;
    lastTop.current = box.scrollTop;
    setAway(!following.current && distance >= NEAR);
  };
  useEffect(() => {
    const box = scroller.current;
    const inner = content.current;
    if (!box || !inner) return;
    const observer = new ResizeObserver(() => {
      if (following.current) box.scrollTop = box.scrollHeight;
    });
    observer.observe(inner);
    observer.observe(box);
    return () => observer.disconnect();
  }, []);
  return { scroller, content, away, toEnd, onScroll };
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
  const { scroller, content, away, toEnd, onScroll } = useFollow();
  const last = path.at(-1);
  const streaming = last?.status === "streaming";
  useLayoutEffect(toEnd, [toEnd, last?.id]);
  return (
    <div className="thread">
      <div className="scroller" ref={scroller} onScroll={onScroll} tabIndex={0} role="region" aria-label={strings.nav.label}>
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
