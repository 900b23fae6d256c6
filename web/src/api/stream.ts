import { createParser } from "eventsource-parser";
import { ApiError, CUT_OFF, isEnvelope } from "./errors";
import { ask } from "./http";
import type { ChatRequest, Chunk, TokenChoice, Usage } from "./types";

/** What an answer's stream says, in its order. */
export type StreamEvent =
  | { kind: "begun"; id: string }
  | { kind: "text"; text: string; tokens: TokenChoice[] }
  | { kind: "finish"; reason: string }
  | { kind: "usage"; usage: Usage }
  /** All before this has been said; an answer can be joined again behind it. */
  | { kind: "place"; at: number };

/** An answer as it is made. Ending the iteration, or aborting, closes the request.
 *
 * The server goes on for a while without us, so that the answer can be joined again; `endGeneration` ends it.
 */
export async function* streamChat(request: ChatRequest, signal: AbortSignal): AsyncGenerator<StreamEvent> {
  const response = await begin({ ...request, stream: true, stream_options: { include_usage: true, rejoin: true } }, signal);
  // Known before the first event, which may be long in coming, so that an answer that waits can be joined again too.
  const id = idOf(response);
  if (id !== null) yield { kind: "begun", id };
  yield* eventsIn(response, signal);
}

const idOf = (response: Response): string | null => response.headers.get("x-generation-id");

/** Asks for an answer. Where it is given up before it has its id, it is ended once that comes; nobody waits for it. */
function begin(body: unknown, signal: AbortSignal): Promise<Response> {
  signal.throwIfAborted();
  const line = new AbortController();
  const sent = ask("/v1/chat/completions", { body, signal: line.signal });
  let head = false;
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => {
      reject(signal.reason as Error);
      if (head) line.abort();
      else sent.then((response) => giveUp(response, line)).catch(() => undefined);
    });
    sent.then((response) => {
      head = true;
      resolve(response);
    }, reject);
  });
}

async function giveUp(response: Response, line: AbortController): Promise<void> {
  const id = idOf(response);
  line.abort();
  if (id !== null) await endGeneration(id);
}

/** What follows of an answer behind an event; all of it where that is below 0. */
export async function* rejoinChat(id: string, behind: number, signal: AbortSignal): AsyncGenerator<StreamEvent> {
  const headers: Record<string, string> = behind < 0 ? {} : { "Last-Event-ID": String(behind) };
  yield* eventsIn(await ask(`/v1/generations/${encodeURIComponent(id)}`, { headers, signal }), signal);
}

/** Frees the server's place of an answer that is not wanted any more. */
export async function endGeneration(id: string): Promise<void> {
  await ask(`/v1/generations/${encodeURIComponent(id)}`, { method: "DELETE" }).catch(() => undefined);
}

async function* eventsIn(response: Response, signal: AbortSignal): AsyncGenerator<StreamEvent> {
  if (!response.body) throw new ApiError("", 0, CUT_OFF);
  yield* decode(response.body, signal);
}

/** The events of a body in OpenAI's form.
 *
 * @throws ApiError the server says so in mid-stream, or the stream ends without its end mark.
 */
export async function* decode(body: ReadableStream<Uint8Array>, signal: AbortSignal): AsyncGenerator<StreamEvent> {
  const arrived: { data: string; id?: string | undefined }[] = [];
  const parser = createParser({ onEvent: (event) => arrived.push(event) });
  const reader = body.getReader();
  const text = new TextDecoder();
  let begun = false;
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((error: unknown) => {
        if (signal.aborted) throw error;
        throw new ApiError("", 0, CUT_OFF);
      });
      if (done) throw new ApiError("", 0, CUT_OFF);
      parser.feed(text.decode(value, { stream: true }));
      for (const { data, id } of arrived.splice(0)) {
        if (data === "[DONE]") return;
        const chunk = parsed(data);
        if (!begun) yield { kind: "begun", id: chunk.id };
        begun = true;
        yield* eventsOf(chunk);
        if (id !== undefined) yield { kind: "place", at: Number(id) };
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

function parsed(data: string): Chunk {
  let value: unknown;
  try {
    value = JSON.parse(data);
  } catch {
    throw new ApiError("", 0, CUT_OFF);
  }
  if (isEnvelope(value)) throw new ApiError(value.error.message, 0, value.error.code);
  return value as Chunk;
}

function* eventsOf(chunk: Chunk): Generator<StreamEvent> {
  const choice = chunk.choices[0];
  const tokens = choice?.logprobs?.content ?? [];
  const text = choice?.delta.content ?? "";
  if (text !== "" || tokens.length > 0) yield { kind: "text", text, tokens };
  if (choice?.finish_reason) yield { kind: "finish", reason: choice.finish_reason };
  if (chunk.usage) yield { kind: "usage", usage: chunk.usage };
}
