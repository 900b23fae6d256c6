/** Questions that were begun and not sent. Each conversation has its own, and so has the next new one. */
import { forgetTexts, readText, writeText } from "../lib/storage";

const PLACE = "tallyformer.draft.";
const placeOf = (conversation: string | null): string => `${PLACE}${conversation ?? "new"}`;

export const draftOf = (conversation: string | null): string => readText(placeOf(conversation)) ?? "";

export const keepDraft = (conversation: string | null, text: string): void => writeText(placeOf(conversation), text === "" ? null : text);

export const forgetDrafts = (): void => forgetTexts(PLACE);
