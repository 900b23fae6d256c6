import "fake-indexeddb/auto";
import { beforeEach, describe, expect, it } from "vitest";
import { db } from "../src/store/db";
import { addMessage, changeMessage, createConversation, deleteConversation, deleteMessage, forkAt, search, showBranch, titleOf } from "../src/store/history";
import { usePreferences } from "../src/store/preferences";
import { cleanSettings, NUMBER_FIELDS, problemOf, withPreset } from "../src/store/settings";
import { exportAll, importAll, NotAnExport, readExport } from "../src/store/transfer";
import { childrenOf, keepSame, newestLeaf, pathTo, subtree } from "../src/store/tree";

beforeEach(async () => {
  await Promise.all(db.tables.map((table) => table.clear()));
  usePreferences.setState({ defaults: {}, presets: [] });
});

async function branched() {
  const home = await createConversation("sft", { temperature: 0.5 }, "Bonds");
  const base = { conversation: home.id, status: "done" as const };
  const question = await addMessage({ ...base, parent: null, role: "user", content: "What is a bond?" });
  const first = await addMessage({ ...base, parent: question.id, role: "assistant", content: "A loan." });
  const second = await addMessage({ ...base, parent: question.id, role: "assistant", content: "A debt that is traded." });
  return { home, question, first, second };
}

const shownIn = async (id: string) => {
  const all = await db.messages.where("conversation").equals(id).toArray();
  return pathTo(new Map(all.map((one) => [one.id, one])), (await db.conversations.get(id))?.leaf ?? null).map((one) => one.content);
};

describe("a conversation", () => {
  it("shows its newest branch, and any other one", async () => {
    const { home, first } = await branched();
    expect(await shownIn(home.id)).toEqual(["What is a bond?", "A debt that is traded."]);
    await showBranch(home.id, first.id);
    expect(await shownIn(home.id)).toEqual(["What is a bond?", "A loan."]);
  });

  it("loses a message with all below it, and shows what is left", async () => {
    const { home, second, question } = await branched();
    await deleteMessage(second);
    expect(await shownIn(home.id)).toEqual(["What is a bond?", "A loan."]);
    await deleteMessage(question);
    expect(await shownIn(home.id)).toEqual([]);
    expect(await db.messages.count()).toBe(0);
  });

  it("is forked up to a message, and the source stays as it is", async () => {
    const { home, first } = await branched();
    const before = await exportAll(home.id);
    const fork = await forkAt(first, "(fork)");
    expect(await shownIn(fork.id)).toEqual(["What is a bond?", "A loan."]);
    expect(await exportAll(home.id)).toBe(before);
  });

  it("comes back after its deletion", async () => {
    const { home } = await branched();
    const before = await exportAll();
    const undo = await deleteConversation(home.id);
    expect(await db.messages.count()).toBe(0);
    await undo();
    expect(await exportAll()).toBe(before);
  });

  it("is found by words of its title and its messages", async () => {
    const { home } = await branched();
    expect(await search("TRADED debt")).toEqual(new Set([home.id]));
    expect(await search("bonds")).toEqual(new Set([home.id]));
    expect(await search("share")).toEqual(new Set());
  });

  it("has a title of whole words", () => {
    expect(titleOf("  What\n is it? ")).toBe("What is it?");
    expect(titleOf("word ".repeat(40))).toMatch(/^(word )*word…$/u);
  });
});

describe("export and import", () => {
  it("give the same trees under new ids", async () => {
    const { home } = await branched();
    expect(await importAll(await exportAll())).toEqual({ conversations: 1, presets: 0 });
    const copy = (await db.conversations.toArray()).find((one) => one.id !== home.id);
    expect(copy).toMatchObject({ title: "Bonds", settings: { temperature: 0.5 } });
    expect(await shownIn(copy?.id ?? "")).toEqual(await shownIn(home.id));
    expect(await db.messages.count()).toBe(6);
  });

  it("keep how an answer ended, how sure each token was, and how it was rated", async () => {
    const { home } = await branched();
    const tokens = [{ token: "A", logprob: -0.5, top_logprobs: [{ token: "The", logprob: -1 }] }];
    const failure = { status: 503, code: "overloaded", message: "busy", retryAfter: 3 };
    const rated = { status: "interrupted", failure, tokens, answer: "chatcmpl-1a", rating: "down", corrected: "A loan.", edited: true } as const;
    await addMessage({ conversation: home.id, parent: null, role: "assistant", content: "A", ...rated });
    await addMessage({ conversation: home.id, parent: null, role: "assistant", content: "", status: "failed", failure });
    await importAll(await exportAll());
    const copies = await db.messages.filter((one) => one.conversation !== home.id).toArray();
    expect(copies.filter((one) => one.status === "interrupted")).toEqual([expect.objectContaining(rated)]);
    expect(copies.filter((one) => one.status === "failed")).toEqual([expect.objectContaining({ failure, content: "" })]);
  });

  it("hold what has come of an answer that is still being made", async () => {
    const home = await createConversation("sft", {}, "Bonds");
    const message = await addMessage({ conversation: home.id, parent: null, role: "assistant", content: "", status: "streaming" });
    await db.partials.put({ message: message.id, text: "A loan that", at: Date.now(), place: null });
    expect(readExport(await exportAll(home.id)).messages).toEqual([expect.objectContaining({ status: "stopped", content: "A loan that" })]);
    const fork = await forkAt(message, "");
    expect((await db.messages.where("conversation").equals(fork.id).toArray())[0]).toMatchObject({ status: "stopped", content: "A loan that" });
    const undo = await deleteConversation(home.id);
    await undo();
    expect(await db.messages.get(message.id)).toMatchObject({ status: "stopped", content: "A loan that" });
  });

  it("take records that share an id once", async () => {
    const one = { id: "m", conversation: "c", role: "user", content: "first" };
    const home = { id: "c", title: "Twice" };
    const file = { format: "tallyformer-conversations", version: 1, conversations: [home, home], messages: [one, { ...one, content: "second" }] };
    expect(await importAll(JSON.stringify(file))).toEqual({ conversations: 1, presets: 0 });
    expect((await db.messages.toArray()).map((message) => message.content)).toEqual(["first"]);
  });

  it("bring presets and the settings of new conversations, and overwrite none", async () => {
    const mine = { name: "Mine", settings: { temperature: 0.3, top_k: 5 } };
    const { setDefaults, setPresets } = usePreferences.getState();
    setDefaults({ system: "Be brief.", seed: 5 });
    setPresets([mine, { name: "Other", settings: { temperature: 2 } }]);
    const file = await exportAll();
    usePreferences.setState({ defaults: {}, presets: [{ name: "Other", settings: { temperature: 1 } }] });
    expect(await importAll(file)).toEqual({ conversations: 0, presets: 1 });
    expect(usePreferences.getState()).toMatchObject({ defaults: { system: "Be brief.", seed: 5 }, presets: [{ name: "Other", settings: { temperature: 1 } }, mine] });
    setDefaults({ seed: 6 });
    expect(await importAll(file)).toEqual({ conversations: 0, presets: 0 });
    expect(usePreferences.getState()).toMatchObject({ defaults: { seed: 6 } });
  });

  it("of one conversation hold no preferences, and files without any change none", async () => {
    const { home } = await branched();
    usePreferences.setState({ defaults: { seed: 5 }, presets: [{ name: "Mine", settings: { top_k: 5 } }] });
    const one = await exportAll(home.id);
    expect(Object.keys(JSON.parse(one) as object)).toEqual(["format", "version", "conversations", "messages"]);
    await importAll(one);
    expect(usePreferences.getState()).toMatchObject({ defaults: { seed: 5 }, presets: [{ name: "Mine", settings: { top_k: 5 } }] });
  });

  it.each([
    [null, {}, []],
    ["x", {}, []],
    [{ defaults: [], presets: {} }, {}, []],
    [{ defaults: { temperature: 9, top_p: "1", ["__proto__"]: { seed: 1 }, evil: 1, top_k: 3 } }, { top_k: 3 }, []],
    [{ presets: [null, 3, { name: 5 }, { name: "  " }, { settings: { top_k: 1 } }] }, {}, []],
    [{ presets: [{ name: " A ", settings: { system: "Lie.", seed: 1, stop: ["."], top_k: -1, min_p: 0.5 } }, { name: "A" }] }, {}, [{ name: "A", settings: { min_p: 0.5 } }]],
    [{ presets: [{ name: "n".repeat(1000) }] }, {}, [{ name: "n".repeat(40), settings: {} }]],
  ])("take of the preferences %j what the page itself would keep", (preferences, defaults, presets) => {
    const file = { format: "tallyformer-conversations", version: 1, conversations: [], messages: [], preferences };
    expect(readExport(JSON.stringify(file)).preferences).toEqual({ defaults, presets });
  });

  it("take no more presets than a list can show", () => {
    const presets = Array.from({ length: 5000 }, (_, at) => ({ name: `Preset ${at}` }));
    const file = { format: "tallyformer-conversations", version: 1, conversations: [], messages: [], preferences: { presets } };
    expect(readExport(JSON.stringify(file)).preferences.presets).toHaveLength(100);
  });

  it.each(["", "{}", "[]", "null", '{"format":"tallyformer-conversations","version":2,"conversations":[],"messages":[]}'])("refuse %s", (text) => {
    expect(() => readExport(text)).toThrow(NotAnExport);
  });

  it("take nothing of a wrong type, and no message without a home", () => {
    const { conversations, messages } = readExport(
      JSON.stringify({
        format: "tallyformer-conversations",
        version: 1,
        conversations: [{ id: "c", title: 5, settings: { temperature: "hot", top_p: 7, stop: [1], evil: 1 }, leaf: "gone" }, null, 3],
        messages: [
          {
            ...{ id: "m", conversation: "c", role: "system", content: {}, parent: "other", metrics: "x" },
            ...{ status: "failed", failure: "x", tokens: [{ token: "a", logprob: "b" }], answer: "../../x", rating: "best", corrected: 3, edited: "yes" },
          },
          { id: "other", conversation: "nowhere", role: "user", content: "lost" },
        ],
      }),
    );
    expect(conversations).toHaveLength(1);
    expect(conversations[0]).toMatchObject({ title: "", settings: {}, leaf: messages[0]?.id });
    expect(messages).toHaveLength(1);
    expect(messages[0]).toMatchObject({ role: "assistant", content: "", parent: null, status: "stopped" });
    expect(Object.keys(messages[0] ?? {}).filter((name) => ["failure", "tokens", "answer", "rating", "corrected", "edited", "metrics"].includes(name))).toEqual([]);
  });
});

describe("trees", () => {
  it("with a circle end", () => {
    const nodes = new Map([
      ["a", { id: "a", parent: "b", created: 0 }],
      ["b", { id: "b", parent: "a", created: 0 }],
    ]);
    expect(pathTo(nodes, "a")).toHaveLength(2);
    expect(newestLeaf(childrenOf(nodes.values()), "a")).toBe("b");
    expect(subtree(childrenOf(nodes.values()), "a")).toEqual(["a", "b"]);
  });

  it("keep the records that have not changed", async () => {
    const { first, second } = await branched();
    const read = async () => db.messages.toArray();
    const before = keepSame(new Map(), await read());
    await changeMessage(second.id, { content: "Changed" });
    const after = keepSame(before, await read());
    expect(after.get(first.id)).toBe(before.get(first.id));
    expect(after.get(second.id)).toMatchObject({ content: "Changed" });
  });
});

describe("settings", () => {
  it.each([
    ["temperature", "", null],
    ["temperature", "0", null],
    ["temperature", "-1", "range"],
    ["temperature", "hot", "number"],
    ["top_p", "0", "range"],
    ["top_p", "1", null],
    ["top_k", "1.5", "whole"],
    ["max_tokens", "0", "range"],
  ])("%s: %s is %s", (name, typed, problem) => {
    const field = NUMBER_FIELDS.find((one) => one.name === name);
    expect(field && problemOf(field, typed)).toBe(problem);
  });

  it("of a preset replace how tokens are drawn, and nothing else", () => {
    const settings = { system: "Be brief.", seed: 5, temperature: 1, top_k: 3 };
    expect(withPreset(settings, { temperature: 0 })).toEqual({ system: "Be brief.", seed: 5, temperature: 0 });
  });

  it.each([null, 5, "x", [], { temperature: Number.NaN, mode: "x", stop: "y", probabilities: 1 }])("from %j are empty", (given) => {
    expect(cleanSettings(given)).toEqual({});
  });
});
