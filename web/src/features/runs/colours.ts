import { useSyncExternalStore } from "react";

/** Colours of runs, in runs.css; there are as many as runs that are plotted together. */
export const COLOURS = 6;

/** What a colour of the style sheets is now: a canvas knows no variables. */
export function colourOf(variable: string): string {
  const probe = document.createElement("span");
  probe.style.color = `var(${variable})`;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

const DARK = "(prefers-color-scheme: dark)";

/** Changes when the page turns light or dark. */
export function useTheme(): string {
  return useSyncExternalStore(
    (changed) => {
      const list = matchMedia(DARK);
      const observer = new MutationObserver(changed);
      observer.observe(document.documentElement, { attributeFilter: ["data-theme"] });
      list.addEventListener("change", changed);
      return () => {
        observer.disconnect();
        list.removeEventListener("change", changed);
      };
    },
    () => `${document.documentElement.dataset.theme ?? ""} ${String(matchMedia(DARK).matches)}`,
  );
}
