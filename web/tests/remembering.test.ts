import { expect, it } from "vitest";
import { remembering } from "../src/markdown/remembering";

it("what was asked for lately is made once, and what was longest not asked for is forgotten", () => {
  const made: string[] = [];
  const upper = remembering((text) => (made.push(text), text.toUpperCase()), 2);
  expect(["a", "b", "a", "c", "a", "b"].map(upper)).toEqual(["A", "B", "A", "C", "A", "B"]);
  expect(made).toEqual(["a", "b", "c", "b"]);
});
