import type { TokenChoice } from "../api/types";
import type { Settings } from "./settings";

export type Status = "done" | "streaming" | "stopped" | "interrupted" | "failed";

export interface Metrics {
  promptTokens: number | null;
  tokens: number | null;
  leftOut: number;
  ttftMs: number | null;
  totalMs: number;
  /** Tokens a second after the first one. */
  tokensPerSecond: number | null;
}

export interface Failure {
  status: number;
  code: string | null;
  message: string;
  retryAfter: number | null;
}

export interface Message {
  id: string;
  conversation: string;
  parent: string | null;
  role: "user" | "assistant";
  content: string;
  created: number;
  /** Raised by each change, so that an equal record keeps its identity. */
  revision: number;
  status: Status;
  model?: string;
  finish?: string;
  metrics?: Metrics;
  failure?: Failure;
  tokens?: TokenChoice[];
  settings?: Settings;
}

export interface Conversation {
  id: string;
  title: string;
  created: number;
  updated: number;
  model: string | null;
  settings: Settings;
  /** The message at the end of the branch that is shown. */
  leaf: string | null;
}

/** Text of an answer that is still being made; a table of its own, as it changes often. */
export interface Partial {
  message: string;
  text: string;
  at: number;
}
