import { useEffect, useRef } from "react";
import { isShortcut, type Shortcut } from "./shortcuts";

/** What lies above the page and takes the keys while it is open. */
const ABOVE = ":is(.dialog, .drawer, .menu, .popover)[data-open]";
const FIELDS = "input, textarea";

/** Whether a key belongs to something that is open, or to a field that has a use for it. */
function isTaken(event: KeyboardEvent, name: Shortcut): boolean {
  // Some browsers tell of an input method by this code alone.
  if (event.defaultPrevented || event.keyCode === 229 || document.querySelector(ABOVE)) return true;
  const { target } = event;
  return name === "stop" && target instanceof Element && target.matches(FIELDS) && !target.closest(".composer");
}

/** Runs where the keys of a shortcut are pressed; nothing where it has nothing to do. */
export function useShortcut(name: Shortcut, run: (() => void) | null): void {
  const now = useRef(run);
  useEffect(() => {
    now.current = run;
  });
  const on = run !== null;
  useEffect(() => {
    if (!on) return;
    const onKey = (event: KeyboardEvent) => {
      if (!isShortcut(event, name) || isTaken(event, name)) return;
      event.preventDefault();
      now.current?.();
    };
    // Before anything that is open closes at the same key.
    document.addEventListener("keydown", onKey, true);
    return () => document.removeEventListener("keydown", onKey, true);
  }, [name, on]);
}
