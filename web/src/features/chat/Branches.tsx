import { ChevronLeft, ChevronRight } from "lucide-react";
import { strings } from "../../lib/strings";
import { showBranch } from "../../store/history";
import type { Message } from "../../store/records";
import { IconButton } from "../../ui/Button";

interface Props {
  message: Message;
  siblings: readonly Message[];
}

/** Which of several versions of a message is shown. */
export function Branches({ message, siblings }: Props) {
  if (siblings.length < 2) return null;
  const at = siblings.findIndex((one) => one.id === message.id);
  const go = (step: number) => {
    const other = siblings[at + step];
    if (other) void showBranch(message.conversation, other.id);
  };
  return (
    <span className="branches">
      <IconButton label={strings.message.previous} icon={<ChevronLeft />} disabled={at === 0} onClick={() => go(-1)} />
      <span>{strings.message.version(at + 1, siblings.length)}</span>
      <IconButton label={strings.message.next} icon={<ChevronRight />} disabled={at === siblings.length - 1} onClick={() => go(1)} />
    </span>
  );
}
