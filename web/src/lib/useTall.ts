import { type RefObject, useLayoutEffect, useRef } from "react";

/** For a text box that is as tall as its text; its style says how tall at most. */
export function useTall(text: string): RefObject<HTMLTextAreaElement | null> {
  const box = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => {
    const area = box.current;
    if (!area) return;
    area.style.blockSize = "auto";
    // Its borders are beside what it scrolls.
    area.style.blockSize = `${area.scrollHeight + area.offsetHeight - area.clientHeight}px`;
  }, [text]);
  return box;
}
