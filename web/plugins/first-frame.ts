import type { Plugin } from "vite";
import { strings } from "../src/lib/strings";

const escaped = (text: string): string => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");

/** Fills in the texts that index.html names as `{first.title}`, from the strings of the page. */
export function firstFrame(): Plugin {
  return {
    name: "first-frame",
    transformIndexHtml: (html) =>
      html.replaceAll(/\{(\w+(?:\.\w+)*)\}/gu, (_, path: string) => {
        const found = path.split(".").reduce<unknown>((at, name) => (at as Record<string, unknown>)[name], strings);
        if (typeof found !== "string") throw new Error(`index.html: no text is named ${path}`);
        return escaped(found);
      }),
  };
}
