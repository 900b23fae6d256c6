import { ApiError, errorOf, UNREACHABLE } from "./errors";
import { apiKey } from "./key";

/** Asks the server that this page comes from, and no other. */
export async function ask(path: string, init: { body?: unknown; signal?: AbortSignal; headers?: Record<string, string>; method?: "DELETE" } = {}): Promise<Response> {
  const key = apiKey();
  const headers = new Headers(init.headers);
  if (key !== "") headers.set("Authorization", `Bearer ${key}`);
  if (init.body !== undefined) headers.set("Content-Type", "application/json");
  let response: Response;
  try {
    response = await fetch(path, {
      method: init.method ?? (init.body === undefined ? "GET" : "POST"),
      headers,
      credentials: "omit",
      cache: "no-store",
      redirect: "error",
      // What ends an answer is sent although the page is being left.
      keepalive: init.method === "DELETE",
      ...(init.body === undefined ? {} : { body: JSON.stringify(init.body) }),
      ...(init.signal ? { signal: init.signal } : {}),
    });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new ApiError("", 0, UNREACHABLE);
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

export async function askJson<T>(path: string, init: Parameters<typeof ask>[1] = {}): Promise<T> {
  return (await (await ask(path, init)).json()) as T;
}
