import { create } from "zustand";
import { fetchModels, takesFeedback } from "../api/models";
import type { ModelCard } from "../api/types";
import { failureOf } from "./collect";
import type { Failure } from "./records";

const AGAIN_MS = 1500;

interface Models {
  cards: ModelCard[];
  failure: Failure | null;
  loaded: boolean;
  /** Whether the server shows training runs. */
  runs: boolean;
  /** Whether answers can be rated. */
  feedback: boolean | null;
}

export const useModels = create<Models>(() => ({ cards: [], runs: false, failure: null, loaded: false, feedback: null }));

let timer: number | undefined;

/** Reads which models there are, and again until all are ready. */
export async function loadModels(): Promise<void> {
  window.clearTimeout(timer);
  let again = true;
  try {
    const { data: cards, runs = false } = await fetchModels();
    again = cards.some((card) => card.status === "loading");
    useModels.setState({ cards, runs, failure: null, loaded: true });
  } catch (error) {
    const failure = failureOf(error);
    again = failure.status !== 401;
    useModels.setState({ failure, loaded: true });
  }
  if (again) timer = window.setTimeout(() => void loadModels(), AGAIN_MS);
}

let asked = false;

/** Asks once whether answers can be rated; not before there is an answer, as that is a large file. */
export function loadFeedback(): void {
  if (asked) return;
  asked = true;
  takesFeedback().then(
    (feedback) => useModels.setState({ feedback }),
    () => (asked = false),
  );
}

/** A model's card, or that of the first ready one. */
export function cardOf(cards: ModelCard[], name: string | null): ModelCard | undefined {
  return cards.find((card) => card.id === name) ?? cards.find((card) => card.id === "sft") ?? cards[0];
}

/** A server of training runs alone has nobody to talk to. */
export const showsRunsAlone = ({ loaded, cards, runs }: Models): boolean => loaded && runs && cards.length === 0;
