import { describe, expect, it } from "vitest";
import { safeAddress } from "../src/markdown/address";
import { blocksOf } from "../src/markdown/blocks";
import { dollarsOnly, withDollars } from "../src/markdown/mathematics";

describe("addresses", () => {
  it.each(["https://example.org/a?b#c", "http://example.org/", "mailto:a@example.org"])("%s may be followed", (address) => {
    expect(safeAddress(address)).toBe(address);
  });

  it.each([
    "javascript:alert(1)",
    " java\nscript:alert(1)",
    "data:text/html,x",
    "blob:http://example.org/1",
    "file:///etc/passwd",
    "//attacker.example",
    "/v1/models",
    "?q=1",
    "#a",
    "",
    "https://user:secret@example.org/",
    undefined,
  ])("%s may not", (address) => {
    expect(safeAddress(address)).toBeUndefined();
  });
});

describe("blocks of a growing text", () => {
  it("are parted by blank lines, but never within code or mathematics", () => {
    const code = "```py\na\n\nb\n```";
    const mathematics = "$$\na\n\nb\n$$";
    expect(blocksOf(`one\n\ntwo\nlines\n\n${code}\n\n${mathematics}\n\nend`)).toEqual(["one", "two\nlines", code, mathematics, "end"]);
  });

  it("hold all of the text but the blank lines, and change only at the end as it grows", () => {
    const text = "# A\n\n- b\n- c\n\n```\nx\n\ny\n```\n\nend of it";
    for (let length = 1; length < text.length; length++) {
      const now = blocksOf(text.slice(0, length));
      const next = blocksOf(text.slice(0, length + 1));
      expect(next.slice(0, now.length - 1)).toEqual(now.slice(0, -1));
      expect(now.join("").replaceAll("\n", "")).toBe(text.slice(0, length).replaceAll("\n", ""));
    }
  });
});

describe("dollars", () => {
  it.each(["It costs $5 and $6.50.", "From $1,000 to $2,000"])("%s is money", (text) => {
    expect(dollarsOnly(text)).toBe(false);
  });

  it.each(["$a + b$", "$2^n$ and $x$", "$2 + 3 = 5$"])("%s is mathematics", (text) => {
    expect(dollarsOnly(text)).toBe(true);
  });

  it("stand for brackets, except in code", () => {
    expect(withDollars("\\(a\\) `\\(b\\)`")).toBe("$$a$$ `\\(b\\)`");
    expect(withDollars("\\[a\\]")).toBe("\n$$\na\n$$\n");
  });
});
