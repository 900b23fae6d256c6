import "fake-indexeddb/auto";
import { createServer, type IncomingMessage, type Server } from "node:http";
import Dexie from "dexie";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { isAnswering, stop } from "../src/store/answering";
import { db } from "../src/store/db";
import { addMessage, changeMessage, createConversation, reopenMessage } from "../src/store/history";
import type { Message } from "../src/store/records";
import { recoverInterrupted } from "../src/store/recovery";

const LATER = 60_000;

beforeEach(async () => {
  await Promise.all(db.tables.map((table) => table.clear()));
});

async function asked(): Promise<Message> {
  const home = await createConversation("sft", {}, "Bonds");
  const question = await addMessage({ conversation: home.id, parent: null, role: "user", content: "What is a bond?", status: "done" });
  return addMessage({ conversation: home.id, parent: question.id, role: "assistant", content: "", status: "streaming" });
}

describe("an answer whose tab is gone", () => {
  it("keeps what had come, once its tab is silent", async () => {
    const message = await asked();
    await db.partials.put({ message: message.id, text: "A loan that", at: Date.now(), place: null });
    expect(await recoverInterrupted()).toBe(0);
    expect(await recoverInterrupted(new Set(), Date.now() + LATER)).toBe(1);
    expect(await db.messages.get(message.id)).toMatchObject({ status: "interrupted", content: "A loan that" });
    expect(await db.partials.count()).toBe(0);
  });

  it("of which nothing was kept is found by every look, not by the first one alone", async () => {
    const message = await asked();
    await db.partials.clear();
    expect(await recoverInterrupted()).toBe(0);
    expect(await recoverInterrupted(new Set(), Date.now() + LATER)).toBe(1);
    expect(await db.messages.get(message.id)).toMatchObject({ status: "interrupted", content: "" });
  });

  it("is looked for without reading the messages that are complete", async () => {
    const read: unknown[] = [];
    const seen = (one: { id: string }) => (read.push(one.id), one);
    const message = await asked();
    db.messages.hook("reading", seen);
    try {
      await recoverInterrupted(new Set(), Date.now() + LATER);
    } finally {
      db.messages.hook("reading").unsubscribe(seen);
    }
    expect(new Set(read)).toEqual(new Set([message.id]));
  });

  it("that is old is not taken up by another tab where it has just been continued", async () => {
    const message = await asked();
    await db.messages.update(message.id, { created: 0, status: "stopped", content: "A loan" });
    await db.partials.clear();
    await reopenMessage(message.id, "A loan", { model: "sft" });
    expect(await recoverInterrupted()).toBe(0);
    expect(await db.messages.get(message.id)).toMatchObject({ status: "streaming", content: "A loan" });
  });

  it("and that ends while it is looked for stays as it ended", async () => {
    const [first, second] = [await asked(), await asked()];
    const looking = recoverInterrupted(new Set(), Date.now() + LATER);
    const ended = [first, second].map(({ id }) => changeMessage(id, { status: "done", content: "A loan." }).then(() => db.partials.delete(id)));
    await Promise.all([looking, ...ended]);
    for (const { id } of [first, second]) expect(await db.messages.get(id)).toMatchObject({ status: "done", content: "A loan." });
  });
});

describe("an answer that the server still makes", () => {
  const heard: string[] = [];
  const own = globalThis.fetch;
  let server: Server;

  beforeEach(async () => {
    heard.length = 0;
    // It holds every stream open and says nothing on it.
    server = createServer((incoming: IncomingMessage, response) => {
      heard.push(`${incoming.method} ${incoming.url}`);
      if (incoming.method === "DELETE") response.writeHead(204).end();
      else response.writeHead(200, { "Content-Type": "text/event-stream" }).write(": waiting\n\n");
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    const home = `http://127.0.0.1:${typeof address === "object" && address ? address.port : 0}`;
    globalThis.fetch = (path, init) => own(`${home}${String(path)}`, init);
    // The timers of a page are its window's.
    vi.stubGlobal("window", globalThis);
  });
  afterEach(() => {
    globalThis.fetch = own;
    vi.unstubAllGlobals();
    server.close();
    server.closeAllConnections();
  });

  it("is joined once, however often and slowly it is looked for, and Stop ends it", async () => {
    const messages = [await asked(), await asked()];
    const coloured = { tokens: [{ token: " loan", logprob: -0.1, top_logprobs: [] }], bare: 1 };
    for (const { id } of messages) await db.partials.put({ message: id, text: "A loan", at: 0, place: { id: `chatcmpl-${id}`, event: 3 }, ...coloured });
    const ids = new Set(messages.map(({ id }) => id));
    const found = await Promise.all([recoverInterrupted(ids), recoverInterrupted(), recoverInterrupted(ids)]);
    expect(found.reduce((sum, one) => sum + one)).toBe(2);
    await vi.waitFor(() => expect(heard.length).toBeGreaterThanOrEqual(2));
    for (const { id } of messages) {
      await stop(id);
      await vi.waitFor(() => expect(isAnswering(id)).toBe(false));
      await vi.waitFor(() => expect(heard).toContain(`DELETE /v1/generations/chatcmpl-${id}`));
      expect(await db.messages.get(id)).toMatchObject({ status: "stopped", content: "A loan", ...coloured });
    }
    expect(heard.filter((one) => one.startsWith("GET"))).toHaveLength(2);
  });
});

it("a database of the first version is upgraded with all that it holds", async () => {
  db.close({ disableAutoOpen: false });
  await Dexie.delete(db.name);
  const old = new Dexie(db.name);
  old.version(1).stores({ conversations: "id, updated", messages: "id, conversation", partials: "message" });
  const conversation = { id: "c", title: "Bonds", created: 1, updated: 2, model: "sft", settings: { temperature: 0.5 }, leaf: "b" };
  const messages = [
    { id: "a", conversation: "c", parent: null, role: "user", content: "What is a bond?", created: 1, revision: 0, status: "done" },
    { id: "b", conversation: "c", parent: "a", role: "assistant", content: "", created: 2, revision: 3, status: "streaming", tokens: [] },
  ];
  const partial = { message: "b", text: "A loan that", at: 2, place: null };
  await old.table("conversations").add(conversation);
  await old.table("messages").bulkAdd(messages);
  await old.table("partials").add(partial);
  old.close();
  expect(await db.conversations.toArray()).toEqual([conversation]);
  expect(await db.messages.toArray()).toEqual(messages);
  expect(await db.partials.toArray()).toEqual([partial]);
  expect(await recoverInterrupted()).toBe(1);
  expect(await db.messages.get("b")).toMatchObject({ status: "interrupted", content: "A loan that" });
});
