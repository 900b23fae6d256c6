import { isAnswering, resume } from "./answering";
import { db } from "./db";
import { changeMessage } from "./history";

/** After this long without a word from the tab that makes an answer, that tab is gone. */
const SILENT_MS = 4000;

/** Answers that a reload or a closed tab broke off: joined again at the server, or kept as far as they came.
 *
 * @param own those of this tab before it was loaded again: nobody else makes them.
 */
export async function recoverInterrupted(own: ReadonlySet<string>, now = Date.now()): Promise<number> {
  const broken = await db.messages.filter((one) => one.status === "streaming" && !isAnswering(one.id)).toArray();
  let recovered = 0;
  for (const message of broken) {
    const partial = await db.partials.get(message.id);
    const silent = now - (partial?.at ?? message.created) >= SILENT_MS;
    if (!silent && !own.has(message.id)) continue;
    recovered++;
    if (partial?.place) {
      void resume(partial);
      continue;
    }
    await changeMessage(message.id, { status: "interrupted", content: partial?.text ?? message.content });
    await db.partials.delete(message.id);
  }
  return recovered;
}
