import { useEffect, useState } from "react";
import { countTokens } from "../api/models";
import type { ChatTurn } from "../api/types";

const PAUSE_MS = 250;

/** Tokens that a model needs for a conversation; null until it is known. */
export function useTokenCount(model: string | null, ready: boolean, turns: ChatTurn[]): number | null {
  const [known, setKnown] = useState<number | null>(null);
  const asked = JSON.stringify(turns);
  useEffect(() => {
    if (model === null || !ready) return;
    const messages = JSON.parse(asked) as ChatTurn[];
    if (!messages.some((turn) => turn.role === "user")) return;
    const controller = new AbortController();
    const timer = window.setTimeout(() => {
      countTokens(model, messages, controller.signal).then(setKnown, () => undefined);
    }, PAUSE_MS);
    return () => {
      window.clearTimeout(timer);
      controller.abort();
    };
  }, [model, ready, asked]);
  return turns.some((turn) => turn.role === "user") ? known : 0;
}
