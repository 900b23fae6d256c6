import { describe, expect, it } from "vitest";
import { Collector } from "../src/store/collect";

const token = (text: string) => ({ token: text, logprob: -0.1, top_logprobs: [] });
const text = (content: string, coloured = true) => ({ kind: "text" as const, text: content, tokens: coloured ? [token(content)] : [] });
const clock = () => 0;

describe("the tokens of an answer", () => {
  it("begin where their text begins, of an answer that goes on too", () => {
    const collected = new Collector("A bond", clock);
    expect(collected.coloured).toBeNull();
    collected.take(text(" is"));
    expect(collected.coloured).toEqual({ tokens: [token(" is")], bare: "A bond".length });
  });

  it("that are known of its beginning are followed by those that come", () => {
    const collected = new Collector("A bond", clock, { tokens: [token(" bond")], bare: 1 });
    // A stream that ends before its first word loses nothing.
    expect(collected.coloured).toEqual({ tokens: [token(" bond")], bare: 1 });
    collected.take(text(" is"));
    expect(collected.coloured).toEqual({ tokens: [token(" bond"), token(" is")], bare: 1 });
  });

  it("are none where the end of the text has none", () => {
    const collected = new Collector("A bond", clock, { tokens: [token("A bond")], bare: 0 });
    collected.take(text(" is", false));
    expect(collected.coloured).toBeNull();
  });
});
