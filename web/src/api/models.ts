import { ask, askJson } from "./http";
import type { ChatTurn, ModelList } from "./types";

export const fetchModels = (): Promise<ModelList> => askJson<ModelList>("/v1/models");

/** Tokens of a conversation up to where its answer begins. */
export async function countTokens(model: string, messages: ChatTurn[], signal: AbortSignal): Promise<number> {
  return (await askJson<{ count: number }>("/tokenize", { body: { model, messages }, signal })).count;
}

/** Whether the server keeps ratings: it does only where it was told to. */
export async function takesFeedback(): Promise<boolean> {
  const { paths } = await askJson<{ paths: Record<string, unknown> }>("/openapi.json");
  return "/v1/feedback" in paths;
}

export interface Rating {
  id: string;
  rating?: "up" | "down";
  corrected?: string;
}

export async function rate(rating: Rating): Promise<void> {
  await ask("/v1/feedback", { body: rating });
}
