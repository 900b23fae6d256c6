import { useState, type KeyboardEvent } from "react";
import { strings } from "../../lib/strings";
import { TOUCH } from "../../lib/useMedia";
import { useTall } from "../../lib/useTall";
import { sendsOn } from "../../parts/Composer";
import { Button } from "../../ui/Button";

interface Props {
  text: string;
  label: string;
  save: string;
  /** An answer has lines of its own: Enter alone is one of them. */
  lines?: boolean;
  onSave: (text: string) => void;
  onCancel: () => void;
}

export function Editor({ text, label, save, lines = false, onSave, onCancel }: Props) {
  const [draft, setDraft] = useState(text);
  const box = useTall(draft);
  const onKey = (event: KeyboardEvent) => {
    if (event.key === "Escape") onCancel();
    else if (sendsOn(event, lines || matchMedia(TOUCH).matches) && draft.trim() !== "") {
      event.preventDefault();
      onSave(draft);
    }
  };
  return (
    <div className="editor">
      <textarea
        ref={box}
        autoFocus
        dir="auto"
        rows={2}
        aria-label={label}
        value={draft}
        onChange={(event) => setDraft(event.target.value)}
        onKeyDown={onKey}
      />
      <div className="editor-actions">
        <Button onClick={onCancel}>{strings.message.cancel}</Button>
        <Button look="primary" disabled={draft.trim() === ""} onClick={() => onSave(draft)}>
          {save}
        </Button>
      </div>
    </div>
  );
}
