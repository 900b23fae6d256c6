import { ArrowUp, Square } from "lucide-react";
import { useEffect, type KeyboardEvent, type ReactNode } from "react";
import { strings } from "../lib/strings";
import { ariaKeysOf } from "../lib/shortcuts";
import { TOUCH, useMedia } from "../lib/useMedia";
import { useShortcut } from "../lib/useShortcut";
import { useTall } from "../lib/useTall";
import { IconButton } from "../ui/Button";

interface Props {
  text: string;
  onText: (text: string) => void;
  onSend: () => void;
  onStop: () => void;
  answering: boolean;
  disabled?: boolean;
  placeholder?: string;
  sendLabel?: string;
  stopLabel?: string;
  /** Changes when the focus should come here. */
  focusOn?: string;
  children?: ReactNode;
}

/** While a word is being composed (Japanese, Chinese, Korean, ...) Enter belongs to the input method. */
export function sendsOn(event: KeyboardEvent, touch: boolean): boolean {
  const composing = event.nativeEvent.isComposing || event.keyCode === 229;
  if (event.key !== "Enter" || composing) return false;
  return event.ctrlKey || event.metaKey || (!event.shiftKey && !touch);
}

export function Composer(props: Props) {
  const { text, onText, onSend, onStop, answering, disabled = false, focusOn, children } = props;
  const touch = useMedia(TOUCH);
  const box = useTall(text);
  const empty = text.trim() === "";

  useEffect(() => {
    const area = box.current;
    if (!area || matchMedia(TOUCH).matches) return;
    area.focus({ preventScroll: true });
    // Behind a draft.
    area.setSelectionRange(area.value.length, area.value.length);
  }, [box, focusOn]);

  /** Send becomes Stop and back: the text takes the focus, but where that would open a keyboard. */
  const toText = () => !touch && box.current?.focus({ preventScroll: true });
  const stop = () => {
    toText();
    onStop();
  };
  useShortcut("stop", answering ? stop : null);
  const onKey = (event: KeyboardEvent) => {
    if (!sendsOn(event, touch)) return;
    event.preventDefault();
    if (!empty && !answering && !disabled) onSend();
  };
  return (
    <form
      className="composer"
      onSubmit={(event) => {
        event.preventDefault();
        if (empty || answering || disabled) return;
        toText();
        onSend();
      }}
    >
      <textarea
        ref={box}
        rows={1}
        dir="auto"
        value={text}
        aria-label={strings.composer.label}
        aria-keyshortcuts={ariaKeysOf("message")}
        placeholder={props.placeholder ?? strings.composer.placeholder}
        onChange={(event) => onText(event.target.value)}
        onKeyDown={onKey}
        enterKeyHint={touch ? "enter" : "send"}
      />
      <div className="composer-row">
        {children}
        <span className="spring" />
        {answering ? (
          <IconButton key="stop" look="primary" className="send" aria-keyshortcuts={ariaKeysOf("stop")} label={props.stopLabel ?? strings.composer.stop} icon={<Square fill="currentColor" />} onClick={stop} />
        ) : (
          <IconButton key="send" type="submit" look="primary" className="send" label={props.sendLabel ?? strings.composer.send} icon={<ArrowUp />} disabled={empty || disabled} />
        )}
      </div>
    </form>
  );
}
