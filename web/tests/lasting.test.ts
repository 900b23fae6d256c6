import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { CUT_OFF } from "../src/api/errors";
import { streamChat } from "../src/api/stream";
import { lasting } from "../src/store/lasting";
import type { Place } from "../src/store/records";

const request = { model: "sft", messages: [{ role: "user" as const, content: "Go on" }] };
const event = (at: number, content: string) => `id: ${at}\ndata: ${JSON.stringify({ id: "chatcmpl-1", choices: [{ delta: { content }, logprobs: null, finish_reason: null }] })}\n\n`;
const END = "data: [DONE]\n\n";

type Reply = (response: ServerResponse) => void;
const breaksAfter = (text: string): Reply => (response) => {
  response.writeHead(200, { "Content-Type": "text/event-stream", "X-Generation-Id": "chatcmpl-1" });
  // Once the bytes are on their way.
  response.write(text, () => setTimeout(() => response.destroy(), 50));
};
const comes = (text: string): Reply => (response) => void response.writeHead(200, { "Content-Type": "text/event-stream" }).end(text);
const refuses = (status: number): Reply => (response) => void response.writeHead(status).end("{}");

describe("an answer whose line breaks", () => {
  const asked: string[] = [];
  let replies: Reply[] = [];
  let server: Server;
  const own = globalThis.fetch;

  beforeEach(async () => {
    asked.length = 0;
    server = createServer((incoming: IncomingMessage, response) => {
      asked.push(`${incoming.method} ${incoming.url} ${incoming.headers["last-event-id"] ?? ""}`.trim());
      (replies.shift() ?? refuses(500))(response);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    const home = `http://127.0.0.1:${typeof address === "object" && address ? address.port : 0}`;
    // A page's addresses are those of its own server.
    globalThis.fetch = (path, init) => own(`${home}${String(path)}`, init);
  });
  afterEach(() => {
    globalThis.fetch = own;
    server.close();
    server.closeAllConnections();
  });

  async function read(): Promise<{ text: string; place: Place | null; error: unknown }> {
    const signal = new AbortController().signal;
    const place: { now: Place | null } = { now: null };
    let text = "";
    try {
      for await (const one of lasting(streamChat(request, signal), place, signal)) if (one.kind === "text") text += one.text;
    } catch (error) {
      return { text, place: place.now, error };
    }
    return { text, place: place.now, error: null };
  }

  it("is joined behind the last event that came whole", async () => {
    replies = [breaksAfter(event(0, "A loan ") + event(1, "that is tra").slice(0, -9)), breaksAfter(event(1, "that is ")), comes(event(2, "traded.") + END)];
    expect(await read()).toEqual({ text: "A loan that is traded.", place: { id: "chatcmpl-1", event: 2 }, error: null });
    expect(asked).toEqual(["POST /v1/chat/completions", "GET /v1/generations/chatcmpl-1 0", "GET /v1/generations/chatcmpl-1 1"]);
  });

  it("before its first event is joined from its beginning", async () => {
    replies = [breaksAfter(": waiting\n\n"), comes(event(0, "A loan.") + END)];
    expect(await read()).toMatchObject({ text: "A loan.", error: null });
    expect(asked[1]).toBe("GET /v1/generations/chatcmpl-1");
  });

  it("and that the server has forgotten is broken off at once, with what had come", async () => {
    replies = [breaksAfter(event(0, "A loan")), refuses(404)];
    expect(await read()).toMatchObject({ text: "A loan", place: { event: 0 }, error: { code: CUT_OFF } });
    expect(asked).toHaveLength(2);
  });

  it("and that the server refuses for another reason ends with that reason", async () => {
    replies = [breaksAfter(event(0, "A loan")), refuses(401)];
    expect(await read()).toMatchObject({ text: "A loan", error: { status: 401 } });
    expect(asked).toHaveLength(2);
  });

  it("that is given up before it has its id is left at once, and ended when that comes", async () => {
    let answer = (): void => undefined;
    const held: Reply = (response) => {
      answer = () => {
        response.writeHead(200, { "Content-Type": "text/event-stream", "X-Generation-Id": "chatcmpl-1" });
        response.write(": waiting\n\n");
      };
    };
    replies = [held, (response) => void response.writeHead(204).end()];
    const controller = new AbortController();
    const place: { now: Place | null } = { now: null };
    const read = async () => {
      for await (const one of lasting(streamChat(request, controller.signal), place, controller.signal)) void one;
    };
    const reading = read();
    await vi.waitFor(() => expect(asked).toEqual(["POST /v1/chat/completions"]));
    controller.abort();
    await expect(reading).rejects.toMatchObject({ name: "AbortError" });
    expect(asked).toHaveLength(1);
    answer();
    await vi.waitFor(() => expect(asked[1]).toBe("DELETE /v1/generations/chatcmpl-1"));
    expect(place.now).toBe(null);
  });

  it("that is given up once it has its id is not ended here, but by whoever gave it up", async () => {
    replies = [(response) => void response.writeHead(200, { "X-Generation-Id": "chatcmpl-1" }).write(event(0, "A loan"))];
    const controller = new AbortController();
    const read = async () => {
      for await (const one of streamChat(request, controller.signal)) if (one.kind === "text") controller.abort();
    };
    await expect(read()).rejects.toMatchObject({ name: "AbortError" });
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(asked).toEqual(["POST /v1/chat/completions"]);
  });
});
