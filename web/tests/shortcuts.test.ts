import { describe, expect, it } from "vitest";
import { isShortcut, keysOf, type Shortcut, SHORTCUTS } from "../src/lib/shortcuts";

const none = { code: "", ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, isComposing: false, repeat: false };

describe("a shortcut", () => {
  it("is found on keyboards of any script", () => {
    expect(isShortcut({ ...none, key: "k", code: "KeyK", ctrlKey: true }, "search", false)).toBe(true);
    expect(isShortcut({ ...none, key: "л", code: "KeyK", ctrlKey: true }, "search", false)).toBe(true);
    // Where Latin letters lie elsewhere, the letter counts and not its place.
    expect(isShortcut({ ...none, key: "t", code: "KeyK", ctrlKey: true }, "search", false)).toBe(false);
    expect(isShortcut({ ...none, key: "/", code: "Digit7", ctrlKey: true, shiftKey: true }, "shortcuts", false)).toBe(true);
    expect(isShortcut({ ...none, key: "O", code: "KeyO", ctrlKey: true, shiftKey: true }, "newChat", false)).toBe(true);
  });

  it("has Command on Apple's computers, where Control belongs to the text", () => {
    expect(isShortcut({ ...none, key: "k", code: "KeyK", metaKey: true }, "search", true)).toBe(true);
    expect(isShortcut({ ...none, key: "k", code: "KeyK", ctrlKey: true }, "search", true)).toBe(false);
    expect(keysOf("newChat", true)).toEqual(["⌘", "⇧", "O"]);
    expect(keysOf("newChat", false)).toEqual(["Ctrl", "Shift", "O"]);
  });

  it("is no other key, none with another modifier, none of an input method, and not one that is held down", () => {
    const names = Object.keys(SHORTCUTS) as Shortcut[];
    const found = (pressed: object) => names.filter((name) => isShortcut({ ...none, key: "k", code: "KeyK", ctrlKey: true, ...pressed }, name, false));
    expect(found({})).toEqual(["search"]);
    for (const pressed of [{ altKey: true }, { metaKey: true }, { shiftKey: true }, { isComposing: true }, { repeat: true }, { ctrlKey: false }]) {
      expect(found(pressed)).toEqual([]);
    }
    // WCAG 2.1.4: no letter, digit or sign alone.
    for (const key of "abcdefghijklmnopqrstuvwxyz0123456789/?.") expect(found({ key, ctrlKey: false })).toEqual([]);
  });
});
