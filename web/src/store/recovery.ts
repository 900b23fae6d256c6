import { isAnswering, isSilent, resume } from "./answering";
import { db } from "./db";
import { changeMessage } from "./history";

/** Answers that a reload or a closed tab broke off: joined again at the server, or kept as far as they came.
 *
 * @param own those of this tab before it was loaded again: nobody else makes them.
 */
export async function recoverInterrupted(own: ReadonlySet<string>, now = Date.now()): Promise<number> {
  const broken = await db.messages.filter((one) => one.status === "streaming" && !isAnswering(one.id)).toArray();
  let recovered = 0;
  for (const message of broken) {
    const partial = await db.partials.get(message.id);
    const silent = isSilent(partial?.at ?? message.created, now);
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
