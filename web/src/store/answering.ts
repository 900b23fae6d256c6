/** Answers being made: from the stream to the page, once a frame, and to the database. */
import { CUT_OFF } from "../api/errors";
import { endGeneration, streamChat, type StreamEvent } from "../api/stream";
import type { ChatRequest, ChatTurn } from "../api/types";
import { perFrame } from "../lib/frames";
import { Collector, failureOf } from "./collect";
import { db, isFull } from "./db";
import { changeMessage } from "./history";
import { lasting } from "./lasting";
import { setLive } from "./live";
import { setOwned } from "./owned";
import type { Coloured, Failure, Message, Partial, Place, Status } from "./records";
import type { Settings } from "./settings";
import { setUnsaved, type End } from "./unsaved";

const SAVE_MS = 500;
/** Of longer answers no tokens are kept while they are made: twice a second all of them would be too many. */
const MOST_TOKENS = 1000;
/** After this long without a word from the tab that makes an answer, that tab is gone. */
const SILENT_MS = 4000;
export const isSilent = (since: number, now = Date.now()): boolean => now - since >= SILENT_MS;

/** How often a full device is asked again whether there is room. */
const ROOM_MS = 1000;

const running = new Map<string, AbortController>();

export interface Asked {
  message: Message;
  model: string;
  turns: ChatTurn[];
  settings: Settings;
  /** Text that the answer continues, and its tokens where they are known. */
  before?: string;
  known?: Coloured | undefined;
}

/** The request of a conversation: our settings have the API's names. */
export function requestOf(model: string, turns: ChatTurn[], settings: Settings): ChatRequest {
  const { system, probabilities, ...sampling } = settings;
  const messages = system?.trim() ? [{ role: "system" as const, content: system }, ...turns] : turns;
  const asked = probabilities ? { logprobs: true, top_logprobs: 5 } : {};
  return { model, messages, ...sampling, ...asked };
}

export const isAnswering = (id: string): boolean => running.has(id);

/** Ends the answer here and at the server, whose place is free then; one that another tab makes too. */
export async function stop(id: string): Promise<void> {
  const own = running.get(id);
  if (own) {
    own.abort();
    return;
  }
  const partial = await db.partials.get(id);
  await changeMessage(id, { status: "stopped", ...(partial ? { content: partial.text } : {}) });
  // A tab that makes it sees that it is not wanted any more, and ends it.
  if (partial?.place && isSilent(partial.at)) await endGeneration(partial.place.id);
}

/** Makes one answer, to its end however it comes. */
export function answer(asked: Asked): Promise<void> {
  const request = requestOf(asked.model, asked.turns, asked.settings);
  return follow(asked.message.id, { text: asked.before ?? "", known: asked.known, place: null }, (signal) => streamChat(request, signal));
}

/** Goes on with an answer whose connection or page is gone. */
export function resume(partial: Partial): Promise<void> {
  const { text, place, tokens, bare } = partial;
  return follow(partial.message, { text, known: tokens && bare !== undefined ? { tokens, bare } : undefined, place }, () => null);
}

interface Begun {
  text: string;
  known: Coloured | undefined;
  place: Place | null;
}

async function follow(id: string, begun: Begun, start: (signal: AbortSignal) => AsyncGenerator<StreamEvent> | null): Promise<void> {
  const controller = new AbortController();
  running.set(id, controller);
  setOwned(running.keys());
  setUnsaved(id, null);
  const collected = new Collector(begun.text, () => performance.now(), begun.known);
  const place = { now: begun.place };
  const show = () => setLive(id, { text: collected.text, tokens: [...collected.tokens], waiting: collected.waiting });
  const save = () => {
    const coloured = collected.tokens.length <= MOST_TOKENS ? collected.coloured : null;
    void db.partials.put({ message: id, text: collected.text, at: Date.now(), place: place.now, ...coloured }).catch(() => undefined);
  };
  const frames = perFrame(show);
  show();
  save();
  // Deleted, or stopped in another tab: the server's place is not held for it.
  const unlessUnwanted = async () => {
    if (await isWanted(id)) save();
    else controller.abort();
  };
  // Its age also tells other tabs that this one still works on it.
  const saving = window.setInterval(() => void unlessUnwanted().catch(save), SAVE_MS);
  let status: Status = "done";
  let failure: Failure | null = null;
  try {
    for await (const event of lasting(start(controller.signal), place, controller.signal)) {
      if (event.kind === "begun") save();
      else if (collected.take(event)) frames.ask();
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
  if (status === "stopped" && place.now) void endGeneration(place.now.id);
  try {
    await keep(id, collected, status, failure, place.now);
  } finally {
    // Not before: an answer that nobody makes is taken up by whoever finds it.
    if (running.get(id) === controller) running.delete(id);
    setOwned(running.keys());
  }
}

const isWanted = async (id: string): Promise<boolean> => (await db.messages.get(id))?.status === "streaming";

async function keep(id: string, collected: Collector, came: Status, failed: Failure | null, place: Place | null): Promise<void> {
  // What another tab has stopped ends as if its connection broke.
  const wanted = await isWanted(id);
  const status = wanted ? came : "stopped";
  const failure = wanted ? failed : null;
  await keptOnceThereIsRoom(id, {
    content: collected.text,
    status,
    metrics: collected.metrics(),
    ...(place ? { answer: place.id } : {}),
    ...(collected.finish ? { finish: collected.finish } : {}),
    ...collected.coloured,
    ...(failure ? { failure } : {}),
  });
  await db.partials.delete(id);
}

/** Until a full device has room, the answer is shown as it ended, and is in no other tab. */
async function keptOnceThereIsRoom(id: string, end: End): Promise<void> {
  for (;;) {
    try {
      await changeMessage(id, end);
      return;
    } catch (error) {
      if (!isFull(error)) throw error;
      setUnsaved(id, end);
      await new Promise((resolve) => setTimeout(resolve, ROOM_MS));
    }
  }
}
