import { CUT_OFF, UNREACHABLE } from "../api/errors";
import { strings } from "../lib/strings";
import type { Failure } from "../store/records";

const words = strings.errors;
const BY_CODE: Record<string, string> = {
  [UNREACHABLE]: words.unreachable,
  [CUT_OFF]: words.cutOff,
  context_length_exceeded: words.tooLong,
  model_not_ready: words.notReady,
  model_not_found: words.gone,
  shutting_down: words.stopping,
  missing_api_key: words.key,
  invalid_api_key: words.wrongKey,
};

/** What went wrong, and what to do about it.
 *
 * @param continues whether an answer can be continued where it ended.
 */
export function failureText(failure: Failure, continues = false): string {
  if (failure.code === CUT_OFF && continues) return words.cutOffHere;
  const known = failure.code === null ? undefined : BY_CODE[failure.code];
  if (known !== undefined) return known;
  if (failure.status === 429) return failure.retryAfter === null ? words.busy : words.wait(Math.ceil(failure.retryAfter));
  if (failure.status === 401) return words.key;
  if (failure.status >= 500) return words.server;
  return words.other(failure.message);
}

export const needsKey = (failure: Failure): boolean => failure.status === 401;
