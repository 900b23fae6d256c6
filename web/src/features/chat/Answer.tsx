import { Copy, GitFork, MoreHorizontal, Palette, Pencil, RefreshCw, StepForward, Trash2, TriangleAlert } from "lucide-react";
import { useLiveQuery } from "dexie-react-hooks";
import { useEffect, useId, useState } from "react";
import { strings } from "../../lib/strings";
import { Markdown } from "../../markdown/Markdown";
import { Failed } from "../../parts/Failed";
import { Probabilities } from "../../parts/Probabilities";
import { db } from "../../store/db";
import { setLive, useLive } from "../../store/live";
import type { Message } from "../../store/records";
import { IconButton } from "../../ui/Button";
import { Menu, MenuItem } from "../../ui/Menu";
import { AnswerDetails, MetricsLine } from "./AnswerDetails";
import { Rate } from "./Rate";
import { Branches } from "./Branches";
import { Editor } from "./Editor";
import type { Actions } from "./Thread";

const words = strings.message;

/** Only an answer that is being made follows the stream; all others are drawn once. */
function Growing({ message }: { message: Message }) {
  const live = useLive((state) => state.answers.get(message.id));
  // Another tab makes it, and keeps what has come.
  const kept = useLiveQuery(() => (live ? undefined : db.partials.get(message.id)), [live === undefined, message.id]);
  const text = live?.text ?? kept?.text ?? message.content;
  if (text === "") {
    return (
      <p className="waiting">
        <span className="dots" aria-hidden="true" />
        <span className="visually-hidden">{words.waiting}</span>
      </p>
    );
  }
  return <Markdown text={text} growing />;
}

function endOf(message: Message): string | null {
  if (message.status === "stopped") return words.stopped;
  if (message.status === "interrupted") return words.interrupted;
  if (message.finish === "length") return words.lengthReached;
  return message.edited ? words.edited : null;
}

/** Whether an answer can be continued where it ended: the last one of a conversation, and only once it has begun. */
const canContinue = (message: Message, last: boolean): boolean => last && endOf(message) !== null && message.content !== "";

function Corrected({ text }: { text: string }) {
  const id = useId();
  return (
    <section className="corrected" aria-labelledby={id}>
      <p id={id}>{strings.rate.corrected}</p>
      <p dir="auto">{text}</p>
    </section>
  );
}

interface Props {
  message: Message;
  siblings: readonly Message[];
  last: boolean;
  actions: Actions;
}

function Tools({ message, siblings, last, actions, colours, onColours, onEdit }: Props & { colours: boolean; onColours: () => void; onEdit: () => void }) {
  const end = endOf(message);
  return (
    <div className="message-tools">
      <Branches message={message} siblings={siblings} turnedRef={actions.turnedRef} />
      {canContinue(message, last) && <IconButton label={words.continue} icon={<StepForward />} onClick={() => actions.continue(message)} />}
      <IconButton label={words.copy} icon={<Copy />} onClick={() => actions.copy(message)} />
      <IconButton label={words.regenerate} icon={<RefreshCw />} onClick={() => actions.regenerate(message)} />
      {message.tokens && (
        <IconButton label={colours ? words.hideProbabilities : words.showProbabilities} icon={<Palette />} aria-pressed={colours} onClick={onColours} />
      )}
      <AnswerDetails message={message} />
      <Rate message={message} />
      <Menu trigger={<IconButton label={words.more} icon={<MoreHorizontal />} />}>
        <MenuItem icon={<Pencil />} onClick={onEdit}>
          {words.edit}
        </MenuItem>
        <MenuItem icon={<GitFork />} onClick={() => actions.fork(message)}>
          {words.fork}
        </MenuItem>
        <MenuItem icon={<Trash2 />} danger onClick={() => actions.remove(message)}>
          {words.delete}
        </MenuItem>
      </Menu>
      {end !== null && <span className="message-end">{end}</span>}
      {message.metrics && <MetricsLine metrics={message.metrics} />}
    </div>
  );
}

export function Answer(props: Props) {
  const { message, last, actions } = props;
  const [colours, setColours] = useState(false);
  const [editing, setEditing] = useState(false);
  const finished = message.status !== "streaming";
  useEffect(() => {
    if (finished) setLive(message.id, null);
  }, [finished, message.id]);
  if (!finished) return <Growing message={message} />;
  if (editing) {
    return (
      <Editor
        lines
        text={message.content}
        label={words.editAnswerLabel}
        save={words.saveAnswer}
        onCancel={() => setEditing(false)}
        onSave={(text) => {
          setEditing(false);
          actions.rewrite(message, text);
        }}
      />
    );
  }
  return (
    <>
      {colours && message.tokens ? <Probabilities tokens={message.tokens} before={message.content.slice(0, message.bare ?? 0)} /> : message.content !== "" && <Markdown text={message.content} />}
      {message.failure && message.status !== "done" && message.status !== "stopped" && (
        <Failed failure={message.failure} continues={canContinue(message, last)} onRetry={() => actions.regenerate(message)} />
      )}
      {message.unsaved && (
        <div className="failure" role="alert">
          <TriangleAlert aria-hidden="true" />
          <p>{strings.errors.unsaved}</p>
        </div>
      )}
      {message.corrected !== undefined && <Corrected text={message.corrected} />}
      <Tools {...props} colours={colours} onColours={() => setColours(!colours)} onEdit={() => setEditing(true)} />
    </>
  );
}
