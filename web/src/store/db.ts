import Dexie, { type EntityTable } from "dexie";
import type { Conversation, Message, Partial } from "./records";

/** History in IndexedDB. Dexie tells the other tabs what changed. */
class Database extends Dexie {
  declare conversations: EntityTable<Conversation, "id">;
  declare messages: EntityTable<Message, "id">;
  declare partials: EntityTable<Partial, "message">;

  constructor() {
    super("tallyformer");
    this.version(1).stores({ conversations: "id, updated", messages: "id, conversation", partials: "message" });
    // By its status, the answers that are being made are found among however many messages.
    this.version(2).stores({ messages: "id, conversation, status" });
  }
}

export const db = new Database();

/** Whether an error means that this device has no room left. */
export function isFull(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const inner: unknown = "inner" in error ? error.inner : null;
  return error.name === "QuotaExceededError" || (inner instanceof Error && inner.name === "QuotaExceededError");
}
