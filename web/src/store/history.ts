import { newId } from "../lib/ids";
import { db } from "./db";
import { forgetDrafts, keepDraft } from "./drafts";
import type { Conversation, Message } from "./records";
import type { Settings } from "./settings";
import { childrenOf, newestLeaf, pathTo, subtree } from "./tree";
import { unsavedEnd } from "./unsaved";

const LONGEST_TITLE = 60;

/** The first words of a question. No model is asked for a title. */
export function titleOf(text: string): string {
  const line = text.trim().replace(/\s+/gu, " ");
  if (line.length <= LONGEST_TITLE) return line;
  const cut = line.slice(0, LONGEST_TITLE);
  return `${cut.slice(0, cut.lastIndexOf(" ") > 20 ? cut.lastIndexOf(" ") : LONGEST_TITLE)}…`;
}

export async function createConversation(model: string | null, settings: Settings, title = ""): Promise<Conversation> {
  const now = Date.now();
  const conversation = { id: newId(), title, created: now, updated: now, model, settings, leaf: null };
  await db.conversations.add(conversation);
  return conversation;
}

export type NewMessage = Omit<Message, "id" | "created" | "revision">;

/** Since when an answer is being made: with its message, so that no tab takes one up that has just begun. */
const putBegun = ({ id, content }: Pick<Message, "id" | "content">) => db.partials.put({ message: id, text: content, at: Date.now(), place: null });

/** Adds a message and makes it the end of what is shown. */
export async function addMessage(given: NewMessage): Promise<Message> {
  const message: Message = { ...given, id: newId(), created: Date.now(), revision: 0 };
  await db.transaction("rw", db.messages, db.conversations, db.partials, async () => {
    await db.messages.add(message);
    if (message.status === "streaming") await putBegun(message);
    await db.conversations.update(message.conversation, { leaf: message.id, updated: message.created });
  });
  return message;
}

export async function changeMessage(id: string, changes: globalThis.Partial<Message>): Promise<void> {
  await db.messages.where("id").equals(id).modify((message) => {
    Object.assign(message, changes, { revision: message.revision + 1 });
  });
}

/** An answer is made further, from this text on. */
export async function reopenMessage(id: string, content: string, changes: Pick<Message, "model" | "settings">): Promise<void> {
  await db.transaction("rw", db.messages, db.partials, async () => {
    await changeMessage(id, { ...changes, content, status: "streaming" });
    // They are those of its text as it was.
    await db.messages.where("id").equals(id).modify((message) => {
      delete message.tokens;
      delete message.bare;
    });
    await putBegun({ id, content });
  });
}

export const renameConversation = (id: string, title: string) => db.conversations.update(id, { title });
export const setConversation = (id: string, changes: globalThis.Partial<Pick<Conversation, "model" | "settings" | "leaf">>) =>
  db.conversations.update(id, changes);

const messagesOf = (conversation: string) => db.messages.where("conversation").equals(conversation);

/** Messages with what has come of an answer that is still being made: as if it were stopped now. */
export async function endedMessages(conversation?: string): Promise<Message[]> {
  const all = await (conversation === undefined ? db.messages.toArray() : messagesOf(conversation).toArray());
  const partials = await db.partials.bulkGet(all.map((one) => one.id));
  return all.map((one, at) => (one.status === "streaming" ? { ...one, status: "stopped", content: partials[at]?.text ?? one.content, ...unsavedEnd(one.id) } : one));
}

/** Deletes a conversation; the result puts it back. */
export async function deleteConversation(id: string): Promise<() => Promise<void>> {
  return db.transaction("rw", db.conversations, db.messages, db.partials, async () => {
    const conversation = await db.conversations.get(id);
    const messages = await endedMessages(id);
    await db.conversations.delete(id);
    await messagesOf(id).delete();
    await db.partials.bulkDelete(messages.map((message) => message.id));
    keepDraft(id, "");
    return async () => {
      if (!conversation) return;
      await db.transaction("rw", db.conversations, db.messages, async () => {
        await db.conversations.put(conversation);
        await db.messages.bulkPut(messages);
      });
    };
  });
}

export async function deleteEverything(): Promise<void> {
  await db.transaction("rw", db.conversations, db.messages, db.partials, async () => {
    await Promise.all([db.conversations.clear(), db.messages.clear(), db.partials.clear()]);
  });
  forgetDrafts();
}

/** Shows the branch of a message: down to its newest end. */
export async function showBranch(conversation: string, message: string): Promise<void> {
  const children = childrenOf(await messagesOf(conversation).toArray());
  await setConversation(conversation, { leaf: newestLeaf(children, message) });
}

/** Deletes a message with all below it, and shows a sibling or what was before. */
export async function deleteMessage(message: Message): Promise<void> {
  await db.transaction("rw", db.conversations, db.messages, async () => {
    const all = await messagesOf(message.conversation).toArray();
    const children = childrenOf(all);
    const siblings = (children.get(message.parent) ?? []).filter((other) => other.id !== message.id);
    await db.messages.bulkDelete(subtree(children, message.id));
    const next = siblings.at(-1);
    await setConversation(message.conversation, { leaf: next ? newestLeaf(children, next.id) : message.parent });
  });
}

/** A new conversation with the messages up to one. */
export async function forkAt(message: Message, suffix: string): Promise<Conversation> {
  return db.transaction("rw", db.conversations, db.messages, db.partials, async () => {
    const source = await db.conversations.get(message.conversation);
    const all = await endedMessages(message.conversation);
    const path = pathTo(new Map(all.map((one) => [one.id, one])), message.id);
    const fork = await createConversation(source?.model ?? null, source?.settings ?? {}, `${source?.title ?? ""} ${suffix}`.trim());
    let parent: string | null = null;
    for (const one of path) {
      const copy: Message = { ...one, id: newId(), conversation: fork.id, parent, revision: 0 };
      await db.messages.add(copy);
      parent = copy.id;
    }
    await setConversation(fork.id, { leaf: parent });
    return fork;
  });
}

/** Ids of conversations whose title or text holds all words. */
export async function search(words: string): Promise<Set<string>> {
  const wanted = words.toLocaleLowerCase().split(/\s+/u).filter(Boolean);
  const holds = (text: string) => wanted.every((word) => text.toLocaleLowerCase().includes(word));
  const found = new Set<string>();
  await db.conversations.each((one) => {
    if (holds(one.title)) found.add(one.id);
  });
  await db.messages.each((one) => {
    if (!found.has(one.conversation) && holds(one.content)) found.add(one.conversation);
  });
  return found;
}
