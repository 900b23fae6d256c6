import { db } from "./db";
import { isAnswering } from "./answering";
import { changeMessage } from "./history";

/** After this long without a word from the tab that makes an answer, that tab is gone. */
const SILENT_MS = 4000;

/** Answers that a reload or a closed tab broke off keep what had come, and can be continued. */
export async function recoverInterrupted(now = Date.now()): Promise<number> {
  const broken = await db.messages.filter((one) => one.status === "streaming" && !isAnswering(one.id)).toArray();
  let recovered = 0;
  for (const message of broken) {
    const partial = await db.partials.get(message.id);
    if (now - (partial?.at ?? message.created) < SILENT_MS) continue;
    await changeMessage(message.id, { status: "interrupted", content: partial?.text ?? message.content });
    await db.partials.delete(message.id);
    recovered++;
  }
  return recovered;
}
