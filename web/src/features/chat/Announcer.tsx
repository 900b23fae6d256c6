import { strings } from "../../lib/strings";
import type { Message } from "../../store/records";
import { useState } from "react";

/** Says aloud that an answer begins, and then the whole of it: not each word as it comes. */
export function Announcer({ last }: { last: Message | undefined }) {
  const [watched, setWatched] = useState<string | null>(null);
  const streaming = last?.status === "streaming";
  if (streaming && watched !== last.id) setWatched(last.id);
  const said = last && watched === last.id ? (streaming ? strings.message.thinking : strings.message.done(last.content)) : "";
  return (
    <div className="visually-hidden" role="status" aria-live="polite" aria-atomic="true">
      {said}
    </div>
  );
}
