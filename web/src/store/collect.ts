import { ApiError } from "../api/errors";
import type { StreamEvent } from "../api/stream";
import type { TokenChoice, Usage } from "../api/types";
import type { Coloured, Failure, Metrics } from "./records";

/** Shorter than this, two readings of the clock say nothing. */
const SHORTEST_MS = 5;

/** Tokens a second after the first one; of an answer that came at once, over all of its time. */
function rateOf(tokens: number, streamedMs: number, totalMs: number): number | null {
  if (tokens > 1 && streamedMs >= SHORTEST_MS) return ((tokens - 1) / streamedMs) * 1000;
  return tokens > 0 && totalMs > 0 ? (tokens / totalMs) * 1000 : null;
}

/** What has come of an answer, and how fast. Pure but for the clock that it is given. */
export class Collector {
  readonly tokens: TokenChoice[];
  finish: string | null = null;
  private usage: Usage | null = null;
  private first: number | null = null;
  private last = 0;
  private readonly began: number;

  /** @param known tokens of the text that there is already. */
  constructor(
    public text: string,
    private readonly clock: () => number,
    private readonly known: Coloured = { tokens: [], bare: text.length },
  ) {
    this.tokens = [...known.tokens];
    this.began = clock();
  }

  /** What is known of its tokens; nothing where they were not asked for, or are those of its beginning alone. */
  get coloured(): Coloured | null {
    const ends = this.waiting || this.tokens.length > this.known.tokens.length;
    return ends && this.tokens.length > 0 ? { tokens: this.tokens, bare: this.known.bare } : null;
  }

  get waiting(): boolean {
    return this.first === null;
  }

  /** Whether there is something new to show. */
  take(event: StreamEvent): boolean {
    if (event.kind === "text") {
      this.last = this.clock();
      this.first ??= this.last;
      this.text += event.text;
      this.tokens.push(...event.tokens);
      return true;
    }
    if (event.kind === "finish") this.finish = event.reason;
    else if (event.kind === "usage") this.usage = event.usage;
    return false;
  }

  metrics(): Metrics {
    const tokens = this.usage?.completion_tokens ?? null;
    const totalMs = this.clock() - this.began;
    return {
      promptTokens: this.usage?.prompt_tokens ?? null,
      tokens,
      leftOut: this.usage?.context_left_out ?? 0,
      ttftMs: this.first === null ? null : this.first - this.began,
      totalMs,
      tokensPerSecond: tokens === null || this.first === null ? null : rateOf(tokens, this.last - this.first, totalMs),
    };
  }
}

export function failureOf(error: unknown): Failure {
  if (!(error instanceof ApiError)) return { status: 0, code: null, message: String(error), retryAfter: null };
  return { status: error.status, code: error.code, message: error.message, retryAfter: error.retryAfter };
}
