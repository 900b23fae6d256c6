import { askJson } from "./http";
import type { ChatTurn, ModelCard, Welcome } from "./types";

export const fetchModels = async (): Promise<ModelCard[]> => (await askJson<{ data: ModelCard[] }>("/v1/models")).data;

export const fetchWelcome = (): Promise<Welcome> => askJson<Welcome>("/welcome");

/** Tokens of a conversation up to where its answer begins. */
export async function countTokens(model: string, messages: ChatTurn[], signal: AbortSignal): Promise<number> {
  return (await askJson<{ count: number }>("/tokenize", { body: { model, messages }, signal })).count;
}
