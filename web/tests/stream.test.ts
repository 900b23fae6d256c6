import { describe, expect, it } from "vitest";
import { ApiError } from "../src/api/errors";
import { decode, type StreamEvent } from "../src/api/stream";

const chunk = (delta: object, finish: string | null = null) =>
  `data: ${JSON.stringify({ id: "chatcmpl-1", choices: [{ delta, logprobs: null, finish_reason: finish }] })}\n\n`;
const WHOLE =
  chunk({ role: "assistant", content: "" }) +
  ": waiting\n\n" +
  chunk({ content: "Zins 5 € " }) +
  chunk({ content: "🙂" }) +
  chunk({}, "stop") +
  `data: ${JSON.stringify({ id: "chatcmpl-1", choices: [], usage: { prompt_tokens: 3, completion_tokens: 2 } })}\n\n` +
  "data: [DONE]\n\n";

function bodyOf(text: string, size: number): ReadableStream<Uint8Array> {
  const bytes = new TextEncoder().encode(text);
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at >= bytes.length) controller.close();
      else controller.enqueue(bytes.slice(at, (at += size)));
    },
  });
}

async function read(text: string, size: number): Promise<StreamEvent[]> {
  const events: StreamEvent[] = [];
  for await (const event of decode(bodyOf(text, size), new AbortController().signal)) events.push(event);
  return events;
}

describe("a stream", () => {
  it.each([1, 2, 3, 7, 64, 10_000])("is the same in parts of %i bytes", async (size) => {
    const events = await read(WHOLE, size);
    expect(events).toEqual([
      { kind: "begun", id: "chatcmpl-1" },
      { kind: "text", text: "Zins 5 € ", tokens: [] },
      { kind: "text", text: "🙂", tokens: [] },
      { kind: "finish", reason: "stop" },
      { kind: "usage", usage: { prompt_tokens: 3, completion_tokens: 2 } },
    ]);
  });

  it("that ends without its end mark was cut off", async () => {
    await expect(read(WHOLE.replace("data: [DONE]\n\n", ""), 50)).rejects.toMatchObject({ code: "cut_off" });
  });

  it("that fails in the middle says why", async () => {
    const failed = chunk({ content: "a" }) + `data: ${JSON.stringify({ error: { message: "no", type: "t", param: null, code: "shutting_down" } })}\n\n`;
    const error: unknown = await read(failed, 50).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(ApiError);
    expect(error).toMatchObject({ message: "no", code: "shutting_down" });
  });
});
