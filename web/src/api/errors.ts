import type { ErrorEnvelope } from "./types";

/** Why a request failed: the API's own code, or what the page knows itself. */
export class ApiError extends Error {
  override name = "ApiError";

  constructor(
    message: string,
    readonly status: number,
    readonly code: string | null,
    /** Seconds after which a new try may succeed. */
    readonly retryAfter: number | null = null,
  ) {
    super(message);
  }
}

export const UNREACHABLE = "unreachable";
export const CUT_OFF = "cut_off";

/** The error of an answer with a status of 400 or more, whatever stands before the API. */
export async function errorOf(response: Response): Promise<ApiError> {
  const wait = Number(response.headers.get("retry-after"));
  const retry = Number.isFinite(wait) && wait > 0 ? wait : null;
  const body: unknown = await response.json().catch(() => null);
  const detail = isEnvelope(body) ? body.error : null;
  return new ApiError(detail?.message ?? response.statusText, response.status, detail?.code ?? null, retry);
}

export function isEnvelope(body: unknown): body is ErrorEnvelope {
  if (typeof body !== "object" || body === null || !("error" in body)) return false;
  const { error } = body;
  return typeof error === "object" && error !== null && "message" in error && typeof error.message === "string";
}
