import { useEffect, useRef } from "react";
import { ChevronLeft, ChevronRight } from "lucide-react";
import { strings } from "../../lib/strings";
import { showBranch } from "../../store/history";
import type { Message } from "../../store/records";
import { IconButton } from "../../ui/Button";

interface Props {
  message: Message;
  siblings: readonly Message[];
  /** The arrow that led to this version; the focus stays on it. */
  turnedRef: { current: -1 | 1 | null };
}

/** Which of several versions of a message is shown. */
export function Branches({ message, siblings, turnedRef }: Props) {
  const arrows = useRef<HTMLSpanElement>(null);
  useEffect(() => {
    const [previous, next] = arrows.current?.querySelectorAll("button") ?? [];
    const [wanted, other] = turnedRef.current === 1 ? [next, previous] : [previous, next];
    if (turnedRef.current !== null) (wanted?.disabled ? other : wanted)?.focus();
    turnedRef.current = null;
  }, [turnedRef]);
  if (siblings.length < 2) return null;
  const at = siblings.findIndex((one) => one.id === message.id);
  const go = (step: -1 | 1) => {
    const other = siblings[at + step];
    turnedRef.current = step;
    if (other) void showBranch(message.conversation, other.id);
  };
  return (
    <span className="branches" ref={arrows}>
      <IconButton label={strings.message.previous} icon={<ChevronLeft />} disabled={at === 0} onClick={() => go(-1)} />
      <span>{strings.message.version(at + 1, siblings.length)}</span>
      <IconButton label={strings.message.next} icon={<ChevronRight />} disabled={at === siblings.length - 1} onClick={() => go(1)} />
    </span>
  );
}
