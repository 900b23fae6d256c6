import { useSyncExternalStore } from "react";

/** Whether a media query matches, now and later. */
export function useMedia(query: string): boolean {
  return useSyncExternalStore(
    (changed) => {
      const list = matchMedia(query);
      list.addEventListener("change", changed);
      return () => list.removeEventListener("change", changed);
    },
    () => matchMedia(query).matches,
  );
}

/** A finger is the main pointer: Enter is a new line there, as the keyboard has no Shift at hand. */
export const TOUCH = "(pointer: coarse)";
