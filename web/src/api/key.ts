import { readText, writeText } from "../lib/storage";

const PLACE = "tallyformer.key";

/** The key that the user typed; the only secret that this page keeps. */
export const apiKey = (): string => readText(PLACE) ?? "";

export function storeApiKey(key: string | null): void {
  writeText(PLACE, key === "" ? null : key);
}
