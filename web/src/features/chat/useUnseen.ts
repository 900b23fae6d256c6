import { useEffect, useState } from "react";
import { countTokens } from "../../api/models";
import type { Message } from "../../store/records";

const counted = new Map<string, Promise<number>>();

/** The first message that the model saw for the newest answer.
 *
 * The server says how many tokens it left out: whole turns, the oldest first. Questions and answers
 * are counted from the newest back, until the prompt's length is reached: few, however long the
 * conversation is.
 */
export function useUnseen(model: string | null, path: Message[]): { before: number; tokens: number } | null {
  const [found, setFound] = useState<{ id: string; before: number } | null>(null);
  const end = path.findLastIndex((message) => message.role === "assistant" && (message.metrics?.leftOut ?? 0) > 0);
  const answer = end === path.length - 1 ? path[end] : undefined;
  const id = answer?.id;
  useEffect(() => {
    if (model === null || !answer) return;
    const controller = new AbortController();
    firstSeen(model, path.slice(0, end), answer.metrics?.promptTokens ?? 0, controller.signal).then(
      (before) => setFound({ id: answer.id, before }),
      () => undefined,
    );
    return () => controller.abort();
    // The record of a finished answer does not change what it saw.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [model, id]);
  if (!answer || found?.id !== answer.id) return null;
  return { before: found.before, tokens: answer.metrics?.leftOut ?? 0 };
}

async function firstSeen(model: string, path: Message[], seen: number, signal: AbortSignal): Promise<number> {
  let at = path.length;
  for (let tokens = 0; at > 0 && tokens < seen; ) {
    const from = Math.max(0, at - (at === path.length ? 1 : 2));
    const turns = path.slice(from, at);
    const key = JSON.stringify([model, turns.map((turn) => turn.content)]);
    const promise = counted.get(key) ?? countTokens(model, turns.map(({ role, content }) => ({ role, content })), signal);
    counted.set(key, promise);
    promise.catch(() => counted.delete(key));
    const more = await promise;
    if (tokens > 0 && tokens + more > seen + 4) break;
    tokens += more;
    at = from;
  }
  return at;
}
