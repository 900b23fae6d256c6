/** What one can do in a conversation. */
import { strings } from "../../lib/strings";
import type { ChatTurn } from "../../api/types";
import { answer } from "../../store/answering";
import { db, isFull } from "../../store/db";
import { addMessage, createConversation, reopenMessage, setConversation, titleOf } from "../../store/history";
import type { Conversation, Message } from "../../store/records";
import type { Settings } from "../../store/settings";
import { pathTo } from "../../store/tree";
import { notify } from "../../ui/toasts";

/** Messages as the API takes them; an answer that failed before its first word is none. */
export function turnsOf(path: readonly Message[]): ChatTurn[] {
  return path.filter((message) => message.role === "user" || message.content.trim() !== "").map(({ role, content }) => ({ role, content }));
}

/** Tells what the browser could not keep. */
async function kept<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    notify({ text: isFull(error) ? strings.toast.full : String(error), problem: true });
    return undefined;
  }
}

export interface Sending {
  conversation: Conversation | null;
  model: string;
  settings: Settings;
  text: string;
  parent: string | null;
}

/** Sends a question; returns its conversation. */
export function send({ conversation, model, settings, text, parent }: Sending): Promise<Conversation | undefined> {
  return kept(
    (async () => {
      const home = conversation ?? (await createConversation(model, settings, titleOf(text)));
      const question = await addMessage({ conversation: home.id, parent, role: "user", content: text, status: "done" });
      await answerTo(question, model, settings);
      return home;
    })(),
  );
}

/** Another answer to a question, beside those that it has. */
export async function answerTo(question: Message, model: string, settings: Settings): Promise<void> {
  await kept(
    (async () => {
      const turns = turnsOf(await pathOf(question));
      const message = await addMessage({
        conversation: question.conversation,
        parent: question.id,
        role: "assistant",
        content: "",
        status: "streaming",
        model,
        settings,
      });
      void kept(answer({ message, model, turns, settings }));
    })(),
  );
}

/** Goes on with an answer where it ended. */
export async function continueAnswer(message: Message, model: string, settings: Settings): Promise<void> {
  await kept(
    (async () => {
      const before = message.content.trimEnd();
      const { tokens, bare = 0 } = message;
      const known = tokens && before === message.content ? { tokens, bare } : undefined;
      const turns = turnsOf(await pathOf(message));
      await reopenMessage(message.id, before, { model, settings });
      void kept(answer({ message, model, turns, settings, before, known }));
    })(),
  );
}

async function pathOf(message: Message): Promise<Message[]> {
  const all = await db.messages.where("conversation").equals(message.conversation).toArray();
  return pathTo(new Map(all.map((one) => [one.id, one])), message.id);
}

export async function editQuestion(message: Message, text: string, model: string, settings: Settings): Promise<void> {
  const conversation = await db.conversations.get(message.conversation);
  if (conversation) await send({ conversation, model, settings, text, parent: message.parent });
}

/** An answer as the reader would have it, beside the one that was made; the model can go on from it. */
export async function rewriteAnswer({ conversation, parent, model, settings }: Message, content: string): Promise<void> {
  const made = { ...(model === undefined ? {} : { model }), ...(settings ? { settings } : {}) };
  await kept(addMessage({ conversation, parent, role: "assistant", content, status: "done", edited: true, ...made }));
}

export const setModel = (conversation: Conversation, model: string) => setConversation(conversation.id, { model });
export const setSettings = (conversation: Conversation, settings: Settings) => setConversation(conversation.id, { settings });
