import { create } from "zustand";
import type { TokenChoice } from "../api/types";

/** An answer that this tab is making. */
export interface Live {
  text: string;
  tokens: TokenChoice[];
  /** Nothing has come yet. */
  waiting: boolean;
}

interface LiveAnswers {
  answers: ReadonlyMap<string, Live>;
}

/** What arrives is shown from here, once a frame; the database follows more slowly. */
export const useLive = create<LiveAnswers>(() => ({ answers: new Map() }));

export function setLive(id: string, live: Live | null): void {
  useLive.setState(({ answers }) => {
    const changed = new Map(answers);
    if (live) changed.set(id, live);
    else changed.delete(id);
    return { answers: changed };
  });
}

export const liveText = (id: string): Live | undefined => useLive.getState().answers.get(id);
