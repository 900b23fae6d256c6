/** Answers being made: from the stream to the page, once a frame, and to the database. */
import { CUT_OFF } from "../api/errors";
import { streamChat } from "../api/stream";
import type { ChatRequest, ChatTurn } from "../api/types";
import { perFrame } from "../lib/frames";
import { Collector, failureOf } from "./collect";
import { db } from "./db";
import { changeMessage } from "./history";
import { setLive } from "./live";
import type { Failure, Message, Status } from "./records";
import type { Settings } from "./settings";

const SAVE_MS = 500;
const running = new Map<string, AbortController>();

export interface Asked {
  message: Message;
  model: string;
  turns: ChatTurn[];
  settings: Settings;
  /** Text that the answer continues. */
  before?: string;
}

/** The request of a conversation: our settings have the API's names. */
export function requestOf(model: string, turns: ChatTurn[], settings: Settings): ChatRequest {
  const { system, probabilities, ...sampling } = settings;
  const messages = system?.trim() ? [{ role: "system" as const, content: system }, ...turns] : turns;
  const asked = probabilities ? { logprobs: true, top_logprobs: 5 } : {};
  return { model, messages, ...sampling, ...asked };
}

export const isAnswering = (id: string): boolean => running.has(id);

/** Closes the request, which frees the server's place. */
export function stop(id: string): void {
  running.get(id)?.abort();
}

/** Makes one answer, to its end however it comes. */
export async function answer(asked: Asked): Promise<void> {
  const { id } = asked.message;
  const controller = new AbortController();
  running.set(id, controller);
  const collected = new Collector(asked.before ?? "", () => performance.now());
  const show = () => setLive(id, { text: collected.text, tokens: [...collected.tokens], waiting: collected.waiting });
  const save = () => void db.partials.put({ message: id, text: collected.text, at: Date.now() }).catch(() => undefined);
  const frames = perFrame(show);
  show();
  save();
  // Its age also tells other tabs that this one still works on it.
  const saving = window.setInterval(save, SAVE_MS);
  let status: Status = "done";
  let failure: Failure | null = null;
  try {
    for await (const event of streamChat(requestOf(asked.model, asked.turns, asked.settings), controller.signal)) {
      if (collected.take(event)) frames.ask();
    }
  } catch (error) {
    if (controller.signal.aborted) status = "stopped";
    else {
      failure = failureOf(error);
      status = failure.code === CUT_OFF && collected.text !== "" ? "interrupted" : "failed";
    }
  }
  frames.end();
  window.clearInterval(saving);
  show();
  running.delete(id);
  await keep(id, collected, status, failure);
}

async function keep(id: string, collected: Collector, status: Status, failure: Failure | null): Promise<void> {
  await changeMessage(id, {
    content: collected.text,
    status,
    metrics: collected.metrics(),
    ...(collected.finish ? { finish: collected.finish } : {}),
    ...(collected.tokens.length > 0 ? { tokens: collected.tokens } : {}),
    ...(failure ? { failure } : {}),
  });
  await db.partials.delete(id);
}
