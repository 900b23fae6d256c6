/** Shapes of the API. Requests come from its own schema, chunks of a stream are OpenAI's. */
import type { components } from "./schema";

type Schemas = components["schemas"];
export type ModelCard = Schemas["ModelCard"];
export type ModelList = Schemas["ModelList"];
export type ChatRequest = Schemas["ChatRequest"];
export type Run = Schemas["Run"];
export type RunCard = Schemas["RunCard"];
export type RunCards = Schemas["RunCards"];
export type RunCurve = Schemas["RunCurve"];
export type RunWritten = Schemas["RunWritten"];
export type RunFact = Schemas["RunFact"];
export type RunStage = Schemas["RunStage"];
export type ErrorEnvelope = Schemas["ErrorEnvelope"];

export type ChatTurn = { role: "system" | "user" | "assistant"; content: string };

/** A token that was chosen, and those that might have been. */
export interface TokenChoice {
  token: string;
  logprob: number;
  top_logprobs: { token: string; logprob: number }[];
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  context_left_out?: number;
}

export interface Chunk {
  id: string;
  choices: {
    delta: { content?: string | null };
    logprobs: { content: TokenChoice[] | null } | null;
    finish_reason: string | null;
  }[];
  usage?: Usage | null;
}
