/** Export and import of everything, branches included. Nothing of an imported file is trusted. */
import { newId } from "../lib/ids";
import { db } from "./db";
import type { TokenChoice } from "../api/types";
import { endedMessages } from "./history";
import type { Conversation, Failure, Message, Metrics, Status } from "./records";
import { addPreferences, type Kept, keptPreferences } from "./preferences";
import { cleanPresets, cleanSettings } from "./settings";
import { newestLeaf, childrenOf } from "./tree";

const FORMAT = "tallyformer-conversations";
const VERSION = 1;
/** A file of more presets than a list can show is none of ours. */
const MOST_PRESETS = 100;
/** An id that a server gave an answer. */
const ANSWER = /^[\w-]{1,100}$/u;

export class NotAnExport extends Error {}

/** Everything, with presets and the settings of new conversations; or one conversation alone. */
export async function exportAll(only?: string): Promise<string> {
  const conversations = only === undefined ? await db.conversations.toArray() : await db.conversations.where("id").equals(only).toArray();
  const messages = await endedMessages(only);
  const preferences = only === undefined ? { preferences: keptPreferences() } : {};
  return JSON.stringify({ format: FORMAT, version: VERSION, conversations, messages, ...preferences }, null, 1);
}

/** Adds the conversations and presets of a file; those that are here stay. Returns how many were added.
 *
 * @throws NotAnExport the text is not such a file.
 */
export async function importAll(text: string): Promise<{ conversations: number; presets: number }> {
  const { conversations, messages, preferences } = readExport(text);
  await db.transaction("rw", db.conversations, db.messages, async () => {
    await db.conversations.bulkAdd(conversations);
    await db.messages.bulkAdd(messages);
  });
  return { conversations: conversations.length, presets: addPreferences(preferences) };
}

/** Checked records with new ids, so that nothing that is here is overwritten. */
export function readExport(text: string): { conversations: Conversation[]; messages: Message[]; preferences: Kept } {
  let given: unknown;
  try {
    given = JSON.parse(text);
  } catch {
    throw new NotAnExport();
  }
  if (!isRecord(given) || given.format !== FORMAT || given.version !== VERSION) throw new NotAnExport();
  if (!Array.isArray(given.conversations) || !Array.isArray(given.messages)) throw new NotAnExport();
  const ids = new Ids();
  const conversations = firstOfEach(given.conversations.filter(isRecord).map((one) => readConversation(one, ids)));
  const known = new Set(conversations.map((one) => one.id));
  const messages = firstOfEach(given.messages.filter(isRecord).map((one) => readMessage(one, ids))).filter((one) => known.has(one.conversation));
  return { conversations: conversations.map((one) => withLeaf(one, messages)), messages: withParents(messages), preferences: readPreferences(given.preferences) };
}

class Ids {
  private readonly fresh = new Map<string, string>();

  of(old: unknown): string {
    if (typeof old !== "string") return newId();
    const id = this.fresh.get(old) ?? newId();
    this.fresh.set(old, id);
    return id;
  }
}

/** Of records that share an id the first: a database has room for one. */
const firstOfEach = <T extends { id: string }>(records: T[]): T[] => [...new Map(records.toReversed().map((one) => [one.id, one])).values()].toReversed();

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null && !Array.isArray(value);
const textOf = (value: unknown, otherwise = ""): string => (typeof value === "string" ? value : otherwise);
const timeOf = (value: unknown): number => (typeof value === "number" && Number.isFinite(value) ? value : Date.now());

/** Files of one conversation, and those of before presets were exported, have none. */
function readPreferences(given: unknown): Kept {
  if (!isRecord(given)) return { defaults: {}, presets: [] };
  return { defaults: cleanSettings(given.defaults), presets: cleanPresets(given.presets).slice(0, MOST_PRESETS) };
}

function readConversation(given: Record<string, unknown>, ids: Ids): Conversation {
  return {
    id: ids.of(given.id),
    title: textOf(given.title).slice(0, 500),
    created: timeOf(given.created),
    updated: timeOf(given.updated),
    model: typeof given.model === "string" ? given.model : null,
    settings: cleanSettings(given.settings),
    leaf: typeof given.leaf === "string" ? ids.of(given.leaf) : null,
  };
}

function readMessage(given: Record<string, unknown>, ids: Ids): Message {
  const metrics = readMetrics(given.metrics);
  const failure = readFailure(given.failure);
  const tokens = readTokens(given.tokens);
  const { rating } = given;
  return {
    id: ids.of(given.id),
    conversation: ids.of(given.conversation),
    parent: typeof given.parent === "string" ? ids.of(given.parent) : null,
    role: given.role === "user" ? "user" : "assistant",
    content: textOf(given.content),
    created: timeOf(given.created),
    revision: 0,
    status: readStatus(given.status, failure),
    ...(typeof given.model === "string" ? { model: given.model } : {}),
    ...(typeof given.finish === "string" ? { finish: given.finish } : {}),
    ...(metrics ? { metrics } : {}),
    ...(failure ? { failure } : {}),
    ...(tokens ? { tokens, bare: bareOf(given) } : {}),
    ...(typeof given.answer === "string" && ANSWER.test(given.answer) ? { answer: given.answer } : {}),
    ...(rating === "up" || rating === "down" ? { rating } : {}),
    ...(typeof given.corrected === "string" ? { corrected: given.corrected } : {}),
    ...(given.edited === true ? { edited: true as const } : {}),
    ...(given.settings === undefined ? {} : { settings: cleanSettings(given.settings) }),
  };
}

/** What is still being made in a file is made by nobody; what has failed says why. */
function readStatus(given: unknown, failure: Failure | null): Status {
  if (given === "interrupted" || given === "failed") return failure || given === "interrupted" ? given : "stopped";
  return given === "stopped" || given === "streaming" ? "stopped" : "done";
}

const finite = (value: unknown): number | null => (typeof value === "number" && Number.isFinite(value) ? value : null);

function readFailure(given: unknown): Failure | null {
  if (!isRecord(given)) return null;
  return {
    status: finite(given.status) ?? 0,
    code: typeof given.code === "string" ? given.code : null,
    message: textOf(given.message),
    retryAfter: finite(given.retryAfter),
  };
}

/** Characters before the first of an answer's tokens. */
function bareOf({ bare, content }: Record<string, unknown>): number {
  return Math.max(0, Math.min(Math.trunc(finite(bare) ?? 0), textOf(content).length));
}

/** All of an answer's tokens, or none: some of them alone would be another text. */
function readTokens(given: unknown): TokenChoice[] | null {
  if (!Array.isArray(given) || given.length === 0) return null;
  const tokens = given.map((one) => {
    const choice = readChoice(one);
    const others = isRecord(one) && Array.isArray(one.top_logprobs) ? one.top_logprobs.map(readChoice).filter((other) => other !== null) : [];
    return choice && { ...choice, top_logprobs: others };
  });
  return tokens.every((one) => one !== null) ? tokens : null;
}

function readChoice(given: unknown): Omit<TokenChoice, "top_logprobs"> | null {
  if (!isRecord(given) || typeof given.token !== "string") return null;
  const logprob = finite(given.logprob);
  return logprob === null ? null : { token: given.token, logprob: Math.min(0, logprob) };
}

function readMetrics(given: unknown): Metrics | null {
  if (!isRecord(given)) return null;
  return {
    promptTokens: finite(given.promptTokens),
    tokens: finite(given.tokens),
    leftOut: finite(given.leftOut) ?? 0,
    ttftMs: finite(given.ttftMs),
    totalMs: finite(given.totalMs) ?? 0,
    tokensPerSecond: finite(given.tokensPerSecond),
  };
}

/** A parent that is missing or in another conversation is none. */
function withParents(messages: Message[]): Message[] {
  const home = new Map(messages.map((one) => [one.id, one.conversation]));
  return messages.map((one) => (one.parent !== null && home.get(one.parent) !== one.conversation ? { ...one, parent: null } : one));
}

function withLeaf(conversation: Conversation, messages: Message[]): Conversation {
  const own = messages.filter((one) => one.conversation === conversation.id);
  if (own.some((one) => one.id === conversation.leaf)) return conversation;
  const first = childrenOf(withParents(own)).get(null)?.at(-1);
  return { ...conversation, leaf: first ? newestLeaf(childrenOf(withParents(own)), first.id) : null };
}
