import { isAnswering, isSilent, resume } from "./answering";
import { db } from "./db";
import { changeMessage } from "./history";

const NONE: ReadonlySet<string> = new Set();

/** Answers that a reload or a closed tab interrupted: joined again at the server, or kept as far as they came.
 *
 * Asked again and again, as tabs are closed at any time; of messages it reads only those that are being made.
 *
 * @param own those of this tab before it was loaded again: nobody else makes them.
 */
export async function recoverInterrupted(own = NONE, now = Date.now()): Promise<number> {
  let recovered = 0;
  for (const id of await db.messages.where("status").equals("streaming").primaryKeys()) {
    const [message, partial] = await db.transaction("r", db.messages, db.partials, () => Promise.all([db.messages.get(id), db.partials.get(id)]));
    // Meanwhile it may have ended, or this tab may make it.
    if (message?.status !== "streaming" || isAnswering(id)) continue;
    if (!own.has(id) && !isSilent(partial?.at ?? message.created, now)) continue;
    recovered++;
    if (partial?.place) {
      void resume(partial);
      continue;
    }
    await changeMessage(id, { status: "interrupted", content: partial?.text ?? message.content });
    await db.partials.delete(id);
  }
  return recovered;
}
