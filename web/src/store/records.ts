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

/** Tokens of a text behind its first `bare` characters, of which none are known. */
export interface Coloured {
  tokens: TokenChoice[];
  bare: number;
}

export interface Message extends globalThis.Partial<Coloured> {
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
  settings?: Settings;
  /** Its id at the server, by which it can be rated. */
  answer?: string;
  rating?: "up" | "down";
  corrected?: string;
  /** Written by the reader, not by the model. */
  edited?: true;
  /** The device has no room for its end, which is in this tab alone; never in the database. */
  unsaved?: true;
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

/** An answer at the server, and the last of its events that the text holds. */
export interface Place {
  id: string;
  event: number;
}

/** Text of an answer that is still being made; a table of its own, as it changes often. */
export interface Partial extends globalThis.Partial<Coloured> {
  message: string;
  text: string;
  at: number;
  /** Where the answer can be joined again. */
  place: Place | null;
}
