import { isAnswering, isSilent, resume } from "./answering";
import { db } from "./db";
import { changeMessage } from "./history";
import type { Message } from "./records";

const isBroken = (one: Message | undefined): one is Message => one?.status === "streaming" && !isAnswering(one.id);

/** Answers that a reload or a closed tab broke off: joined again at the server, or kept as far as they came.
 *
 * It reads every message, which takes long where there are many: once, when the page starts.
 *
 * @param own those of this tab before it was loaded again: nobody else makes them.
 */
export async function recoverInterrupted(own: ReadonlySet<string>, now = Date.now()): Promise<number> {
  return recover(await db.messages.filter(isBroken).toArray(), own, now);
}

/** Those of tabs that were closed since: an answer that is being made has a partial, of which there are few. */
export async function recoverSilent(now = Date.now()): Promise<number> {
  const partials = await db.partials.toCollection().primaryKeys();
  return recover((await db.messages.bulkGet(partials)).filter(isBroken), new Set(), now);
}

async function recover(broken: readonly Message[], own: ReadonlySet<string>, now: number): Promise<number> {
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
