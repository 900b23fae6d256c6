/** Ends of answers that this device had no room for: they stay in this tab until there is room. */
import { create } from "zustand";
import type { Message } from "./records";

export type End = Partial<Message> & Pick<Message, "status" | "content">;
type Ends = ReadonlyMap<string, End>;

export const useUnsaved = create<{ ends: Ends }>(() => ({ ends: new Map() }));

/** Null where the answer is made further. One that was saved may stay: its record says that it has ended. */
export function setUnsaved(id: string, end: End | null): void {
  const ends = new Map(useUnsaved.getState().ends);
  if (end) ends.set(id, end);
  else if (!ends.delete(id)) return;
  useUnsaved.setState({ ends });
}

export const unsavedEnd = (id: string): End | undefined => useUnsaved.getState().ends.get(id);

/** Messages as they are in the database, with the ends that it has no room for. */
export function withUnsaved(messages: ReadonlyMap<string, Message>, ends: Ends): ReadonlyMap<string, Message> {
  const missing = [...ends].flatMap(([id, end]) => {
    const message = messages.get(id);
    return message?.status === "streaming" ? [{ ...message, ...end, unsaved: true as const }] : [];
  });
  return missing.length === 0 ? messages : new Map([...messages, ...missing.map((one) => [one.id, one] as const)]);
}
