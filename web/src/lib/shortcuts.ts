/** Keys that work anywhere in the page, as in other chat pages. Each has a modifier, but the one that stops. */
interface Keys {
  key: string;
  /** Command on Apple's computers, Control elsewhere. */
  control?: boolean;
  shift?: boolean;
}

export const SHORTCUTS = {
  newChat: { control: true, shift: true, key: "o" },
  search: { control: true, key: "k" },
  message: { shift: true, key: "Escape" },
  stop: { key: "Escape" },
  sidebar: { control: true, shift: true, key: "s" },
  shortcuts: { control: true, key: "/" },
} as const satisfies Record<string, Keys>;

export type Shortcut = keyof typeof SHORTCUTS;

const APPLE = /Mac|iP(hone|ad|od)/u.test(globalThis.navigator?.platform ?? "");

/** What is pressed, one key after another, as it stands on the keyboard. */
export function keysOf(name: Shortcut, apple = APPLE): string[] {
  const { control, shift, key }: Keys = SHORTCUTS[name];
  const last = key === "Escape" ? "Esc" : key.toUpperCase();
  return [...(control ? [apple ? "⌘" : "Ctrl"] : []), ...(shift ? [apple ? "⇧" : "Shift"] : []), last];
}

/** As `aria-keyshortcuts` has it. */
export function ariaKeysOf(name: Shortcut): string {
  const { control, shift, key }: Keys = SHORTCUTS[name];
  return [...(control ? [APPLE ? "Meta" : "Control"] : []), ...(shift ? ["Shift"] : []), key].join("+");
}

type Pressed = Pick<KeyboardEvent, "key" | "code" | "ctrlKey" | "metaKey" | "altKey" | "shiftKey" | "isComposing" | "repeat">;

/** Whether a key is that of a shortcut, on keyboards of any script. */
export function isShortcut(event: Pressed, name: Shortcut, apple = APPLE): boolean {
  const { control = false, shift = false, key }: Keys = SHORTCUTS[name];
  const [wanted, other] = apple ? [event.metaKey, event.ctrlKey] : [event.ctrlKey, event.metaKey];
  if (event.isComposing || event.repeat || event.altKey || other || wanted !== control) return false;
  // A slash needs Shift on many keyboards; a letter of another script stands where the Latin one is.
  if (key === "/") return event.key === key;
  const typed = /^\P{ASCII}$/u.test(event.key) ? event.code.replace(/^Key/u, "") : event.key;
  return event.shiftKey === shift && typed.toLowerCase() === key.toLowerCase();
}
