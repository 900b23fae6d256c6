import { ApiError, CUT_OFF, UNREACHABLE } from "../api/errors";
import { rejoinChat, type StreamEvent } from "../api/stream";
import type { Place } from "./records";

/** How long to wait before each try to join again; what comes in between begins the list anew. */
const WAITS_MS = [0, 500, 1500, 4000, 8000];

/** A stream that is joined again where its connection broke, until its end or until it is gone.
 *
 * @param start the first connection; null joins right away.
 * @param place where the answer is; kept up to date.
 */
export async function* lasting(
  start: AsyncGenerator<StreamEvent> | null,
  place: { now: Place | null },
  signal: AbortSignal,
): AsyncGenerator<StreamEvent> {
  let tries = 0;
  let stream = start;
  let broken = new ApiError("", 0, CUT_OFF);
  for (;;) {
    try {
      const from = place.now;
      if (!stream) {
        if (!from) throw broken;
        stream = rejoinChat(from.id, from.event, signal);
      }
      for await (const event of stream) {
        tries = 0;
        if (event.kind === "begun") place.now ??= { id: event.id, event: -1 };
        else if (event.kind === "place" && place.now) place.now = { ...place.now, event: event.at };
        yield event;
      }
      return;
    } catch (error) {
      stream = null;
      if (signal.aborted || !(error instanceof ApiError)) throw error;
      if (error.status === 404 && place.now) throw broken;
      if (error.code !== CUT_OFF && error.code !== UNREACHABLE) throw error;
      const wait = WAITS_MS[tries++];
      if (!place.now || wait === undefined) throw error;
      broken = new ApiError("", 0, CUT_OFF);
      await pause(wait, signal);
    }
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("", "AbortError"));
    });
  });
}
