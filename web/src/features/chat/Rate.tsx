import { ThumbsDown, ThumbsUp } from "lucide-react";
import { useEffect, useId, useState } from "react";
import { rate, type Rating } from "../../api/models";
import { strings } from "../../lib/strings";
import { failureText } from "../../parts/failures";
import { failureOf } from "../../store/collect";
import { changeMessage } from "../../store/history";
import { loadFeedback, useModels } from "../../store/models";
import type { Message } from "../../store/records";
import { Button, IconButton } from "../../ui/Button";
import { Dialog } from "../../ui/Dialog";
import { notify } from "../../ui/toasts";

const words = strings.rate;

async function send(message: Message, rating: Rating): Promise<void> {
  try {
    await rate(rating);
    const { rating: given, corrected } = rating;
    await changeMessage(message.id, { ...(given ? { rating: given } : {}), ...(corrected ? { corrected } : {}) });
    notify({ text: words.thanks });
  } catch (error) {
    const failure = failureOf(error);
    notify({ text: failure.status === 404 ? words.gone : failureText(failure), problem: true });
  }
}

function Correction({ message, onSend }: { message: Message; onSend: (corrected: string | undefined) => void }) {
  const id = useId();
  const [text, setText] = useState(message.corrected ?? message.content);
  const changed = text.trim() !== "" && text !== message.content;
  return (
    <>
      <div className="field">
        <label htmlFor={id}>{words.label}</label>
        <textarea id={id} dir="auto" rows={6} value={text} onChange={(event) => setText(event.target.value)} />
      </div>
      <footer className="dialog-actions">
        <Button onClick={() => onSend(undefined)}>{words.skip}</Button>
        <Button look="primary" disabled={!changed} onClick={() => onSend(text)}>
          {words.send}
        </Button>
      </footer>
    </>
  );
}

/** Thumbs up and down, and a better answer, where the server keeps them. */
export function Rate({ message }: { message: Message }) {
  const kept = useModels((state) => state.feedback);
  // Null until it is first opened: there is one in each of many answers.
  const [open, setOpen] = useState<boolean | null>(null);
  const { answer } = message;
  useEffect(loadFeedback, []);
  if (!kept || answer === undefined || message.content === "") return null;
  return (
    <>
      <IconButton label={words.up} icon={<ThumbsUp />} aria-pressed={message.rating === "up"} onClick={() => void send(message, { id: answer, rating: "up" })} />
      <IconButton label={words.down} icon={<ThumbsDown />} aria-pressed={message.rating === "down"} onClick={() => setOpen(true)} />
      {open !== null && (
        <Dialog open={open} onClose={() => setOpen(false)} title={words.title} lead={words.lead}>
          <Correction
            message={message}
            onSend={(corrected) => {
              setOpen(false);
              void send(message, { id: answer, rating: "down", ...(corrected === undefined ? {} : { corrected }) });
            }}
          />
        </Dialog>
      )}
    </>
  );
}
