"""A server that speaks OpenAI's API, asked over HTTP in streams."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx

from tallyformer.bench.sse import EventDecoder, TooLongError
from tallyformer.bench.target import Counts, RequestFailed
from tallyformer.bench.words import prompt_of_words
from tallyformer.errors import RunError, UsageError
from tallyformer.quoting import quoted

ENDPOINTS = ("completions", "chat")
_PATHS = {"completions": "/completions", "chat": "/chat/completions"}
_TRIES = 6
"""Requests that it may take to find out how many words a prompt of some tokens has."""
_CONNECT_SECONDS = 30.0
_CLOSING_SECONDS = 1.0
"""How long a server may take to close an answer after its last event."""
_LONGEST_DETAIL = 300
"""Letters of what a server says of a failure."""
_LONGEST_BODY = 1 << 20
"""Bytes that are read of what is not a stream."""
_MOST_TOKENS = 10**9
"""What no answer and no prompt has."""
_Json = dict[str, Any]


class ServerTarget:
    """A `Target`: a model of a server.

    It is asked for answers of a fixed length (`ignore_eos`, where the server knows that) and for
    the usage at the end of each stream. Sampling is the server's own.

    Args:
        url: of the API, as http://127.0.0.1:8000/v1.
        client: that asks; closed by `close`.
        model: its name.
        endpoint: "completions" or "chat".

    Attributes:
        timeout: seconds for a whole answer; None waits for ever.
    """

    def __init__(self, url: str, client: httpx.AsyncClient, model: str, endpoint: str) -> None:
        self.name = model
        self.facts: dict[str, Any] = {"url": url, "endpoint": endpoint}
        self.url = url
        self.endpoint = endpoint
        self.fixed_length = True
        self.count_chunks = False
        self.timeout: float | None = None
        self._client = client
        self._words: dict[int, int] = {}

    async def prepare(self, prompt_tokens: int) -> bool:
        """Find out how many words make a prompt of so many tokens, by asking.

        Always true: what the server refuses are failures.
        """
        words = prompt_tokens
        found: dict[int, int] = {}
        refused: set[int] = set()
        while words not in found and words not in refused and len(found) < _TRIES:
            try:
                prompt = prompt_of_words(words, "length", prompt_tokens)
                found[words] = (await self.ask(prompt, 1, _nothing)).prompt
            except RequestFailed:  # it may be too long, if words have several tokens
                refused.add(words)
                words = max(1, words // 2)
            else:
                lacking = prompt_tokens - found[words]
                words = max(1, words + round(lacking / _slope(found)))
        nearest = min(found, key=lambda w: abs(found[w] - prompt_tokens), default=prompt_tokens)
        self._words[prompt_tokens] = nearest
        return True

    def prompt(self, tokens: int, *key: int | str) -> Any:
        """A text of words."""
        return prompt_of_words(self._words[tokens], *key)

    async def ask(self, prompt: Any, output_tokens: int, heard: Callable[[], None]) -> Counts:
        """Have one prompt answered."""
        try:
            async with asyncio.timeout(self.timeout):
                return await self._asked(prompt, output_tokens, heard)
        except TimeoutError:
            raise RequestFailed("timeout") from None

    async def _asked(self, prompt: Any, output_tokens: int, heard: Callable[[], None]) -> Counts:
        chunks, finished, counts = 0, False, None
        async with contextlib.aclosing(self._events(self._body(prompt, output_tokens))) as events:
            async for event in events:
                if event is None:
                    finished = True
                    continue
                if error := event.get("error"):
                    raise RequestFailed("error in the stream", _short(_message(error)))
                counts = _counts(event) or counts
                for text, ends in _choices(event):
                    if text:
                        chunks += 1
                        heard()
                    finished = finished or ends
        if not finished:
            raise RequestFailed("stream cut off")
        if counts is None and not self.count_chunks:
            raise RequestFailed("no usage in the stream")
        return counts or Counts(len(prompt.split()), chunks)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _body(self, prompt: str, output_tokens: int) -> _Json:
        body: _Json = {
            "model": self.name,
            "max_tokens": output_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.fixed_length:
            body["ignore_eos"] = True
        if self.endpoint == "chat":
            return {**body, "messages": [{"role": "user", "content": prompt}]}
        return {**body, "prompt": prompt}

    async def _events(self, body: _Json) -> AsyncGenerator[_Json | None, None]:
        """The events of an answer; None is the one that ends it."""
        decoder = EventDecoder()
        try:
            async with self._client.stream(
                "POST", self.url + _PATHS[self.endpoint], json=body
            ) as response:
                if response.status_code != 200:
                    told = _told(await _body_of(response))
                    raise RequestFailed(f"HTTP {response.status_code}", told)
                parts = response.aiter_bytes()
                done = begun = False
                async for received in parts:
                    for data in decoder.feed(received):
                        begun = True
                        done = done or data == "[DONE]"
                        yield None if done else _event(data)
                    if done:
                        break
                if not begun:
                    kind = response.headers.get("content-type", "of no type")
                    raise RequestFailed("no events in the answer", f"it is {_short(kind)}")
                await _read_to_the_end(parts)
        except TooLongError:
            raise RequestFailed("no end of an event in the stream") from None
        except httpx.TimeoutException:
            raise RequestFailed("timeout") from None
        except httpx.ConnectError as error:
            raise RequestFailed("no connection", str(error)) from None
        except httpx.HTTPError as error:
            raise RequestFailed("connection broken", str(error) or type(error).__name__) from None


async def connect(
    url: str,
    *,
    model: str | None = None,
    key: str | None = None,
    endpoint: str | None = None,
    count_chunks: bool = False,
    timeout: float = 120.0,
) -> ServerTarget:
    """A server's target, after it has answered once.

    Args:
        url: of the server or of its API.
        model: its name there; None takes the only one.
        key: of the API.
        endpoint: "completions" or "chat"; None takes the first that is there.
        count_chunks: count chunks where the server sends no usage.
        timeout: seconds for that answer.

    Raises:
        UsageError: the URL is wrong, or it is not said which model.
        RunError: the server cannot be reached, refuses, or does not send what is needed.
    """
    base = api_url(url)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    client = httpx.AsyncClient(
        headers=headers,
        timeout=httpx.Timeout(timeout, connect=_CONNECT_SECONDS),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
    )
    try:
        name = model or await _only_model(client, base, keyed=key is not None, timeout=timeout)
        target = ServerTarget(base, client, name, endpoint or ENDPOINTS[0])
        target.count_chunks = count_chunks
        target.timeout = timeout
        await _try_out(target, keyed=key is not None, other=endpoint is None)
    except BaseException:
        await client.aclose()
        raise
    return target


def api_url(url: str) -> str:
    """Where a server's API is: the URL with `/v1` at its end.

    Raises:
        UsageError: it is not the URL of a server.
    """
    try:
        parts = urlsplit(url.strip())
        wrong = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
        wrong = wrong or bool(parts.query or parts.fragment)
    except ValueError:
        wrong = True
    if wrong:
        raise UsageError(
            f"{quoted(url)} is not a server's URL. Write scheme, host and port, as "
            "http://127.0.0.1:8000/v1"
        )
    if "@" in parts.netloc:
        raise UsageError(
            "a URL with a user or a password would stand so in the report. Leave them out, and "
            "give a server's key with --api-key-file"
        )
    base = url.strip().rstrip("/")
    for path in _PATHS.values():
        base = base.removesuffix("/v1" + path) + ("/v1" if base.endswith("/v1" + path) else "")
    return base if base.endswith("/v1") else base + "/v1"


def read_key(file: Path) -> str:
    """The key in a file, without white space around it.

    Raises:
        UsageError: the file cannot be read, or does not hold one key.
    """
    try:
        key = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not ASCII text"
        raise UsageError(f"--api-key-file: {file}: {reason}. Give a file with the key") from None
    if not key or len(key.split()) != 1:
        raise UsageError(f"--api-key-file: {file} does not hold one key. Put the key alone in it")
    return key


async def _only_model(client: httpx.AsyncClient, base: str, *, keyed: bool, timeout: float) -> str:
    try:
        async with asyncio.timeout(timeout), client.stream("GET", base + "/models") as response:
            status, body = response.status_code, await _body_of(response)
    except TimeoutError:
        raise _unreachable(base, f"no answer within {timeout:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unreachable(base, str(error) or type(error).__name__) from None
    if status in (401, 403):
        raise _refused(base, status, keyed=keyed)
    try:
        if status != 200:
            raise ValueError
        names = [_short(str(card["id"])) for card in json.loads(body)["data"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RunError(
            f"{base}/models: does not list models (HTTP {status}). Give the URL up to /v1, or "
            "--model NAME if the server has no such list"
        ) from None
    if len(names) == 1:
        return names[0]
    listed = ", ".join(names[:10]) or "none"
    raise UsageError(f"{base}: the server has these models: {listed}. Give --model NAME")


async def _try_out(target: ServerTarget, *, keyed: bool, other: bool) -> None:
    """Have one prompt answered, and learn what the server does not know.

    Args:
        target: what is asked; changed to what the server understands.
        keyed: whether a key is sent.
        other: whether the other endpoint may be taken.
    """
    prompt = prompt_of_words(4, "try")
    try:
        await target.ask(prompt, 2, _nothing)
    except RequestFailed as failed:
        if other and failed.kind in ("HTTP 404", "HTTP 405", "HTTP 501") and not _no_model(failed):
            target.endpoint = target.facts["endpoint"] = ENDPOINTS[1]
            await _try_out(target, keyed=keyed, other=False)
            return
        if target.fixed_length and failed.kind in ("HTTP 400", "HTTP 422"):
            target.fixed_length = False
            target.facts["answers"] = "of any length: the server refuses ignore_eos"
            await _try_out(target, keyed=keyed, other=other)
            return
        raise _explained(target, failed, keyed=keyed) from None


def _explained(target: ServerTarget, failed: RequestFailed, *, keyed: bool) -> Exception:
    where = target.url + _PATHS[target.endpoint]
    if failed.kind in ("HTTP 401", "HTTP 403"):
        return _refused(target.url, int(failed.kind[-3:]), keyed=keyed)
    if failed.kind == "no events in the answer":
        return RunError(
            f"{where}: {failed}, not a stream of events. Give the URL of an OpenAI API, up to /v1"
        )
    if failed.kind == "no connection":
        return _unreachable(target.url, failed.detail)
    if failed.kind == "no usage in the stream":
        return RunError(
            f"{where}: the server sends no usage in its streams, so tokens cannot be counted. Give "
            "--count-chunks to count each chunk as a token, or a server that knows "
            "stream_options.include_usage"
        )
    if _no_model(failed):
        return UsageError(f"{where}: {failed}. Give a model of this server with --model NAME")
    if failed.kind == "HTTP 404":
        return RunError(f"{where}: is not there (HTTP 404). Give the URL up to /v1")
    return RunError(f"{where}: {failed}. See the server's log")


def _no_model(failed: RequestFailed) -> bool:
    return failed.kind == "HTTP 404" and "model" in failed.detail.lower()


def _unreachable(base: str, reason: str) -> RunError:
    return RunError(
        f"{base}: cannot be reached ({_short(reason)}). Start the server (`tallyformer serve "
        "--model FOLDER`), or correct the URL"
    )


def _refused(base: str, status: int, *, keyed: bool) -> RunError:
    if keyed:
        return RunError(f"{base}: refuses the key (HTTP {status}). Correct the --api-key-file")
    return RunError(f"{base}: wants an API key (HTTP {status}). Give --api-key-file FILE")


def _slope(tried: Mapping[int, int]) -> float:
    """Tokens a word: of the two last tries, or of the only one; at least 1."""
    if len(tried) == 1:
        return max(1.0, *(tokens / words for words, tokens in tried.items()))
    (words, tokens), (more_words, more_tokens) = list(tried.items())[-2:]
    return max(1.0, (more_tokens - tokens) / (more_words - words))


async def _read_to_the_end(parts: AsyncIterator[bytes]) -> None:
    """Take what follows the last event, so that the connection is kept for the next request."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CLOSING_SECONDS):
            async for _ in parts:
                pass


async def _body_of(response: httpx.Response) -> bytes:
    """What is not a stream, of a bounded length."""
    body = b""
    async for received in response.aiter_bytes():
        body += received
        if len(body) > _LONGEST_BODY:
            break
    return body


def _event(data: str) -> _Json:
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        raise RequestFailed("not JSON in the stream", _short(data))
    return event


def _choices(event: _Json) -> Iterator[tuple[str, bool]]:
    """The new text of each choice, of either endpoint, and whether it ends."""
    try:
        for choice in event.get("choices") or ():
            content = choice if "text" in choice else choice.get("delta") or {}
            text = content.get("text" if content is choice else "content") or ""
            yield text if isinstance(text, str) else "?", bool(choice.get("finish_reason"))
    except (AttributeError, TypeError):
        raise _no_answer(event) from None


def _counts(event: _Json) -> Counts | None:
    """The usage in an event."""
    usage = event.get("usage")
    if not usage:
        return None
    if isinstance(usage, dict):
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        prompt, answer = (n if type(n) is int and 0 <= n < _MOST_TOKENS else None for n in counts)
        if prompt is not None and answer is not None:
            return Counts(prompt, answer)
    raise _no_answer(event)


def _no_answer(event: _Json) -> RequestFailed:
    return RequestFailed("not an answer's event in the stream", _short(json.dumps(event)))


def _told(body: bytes) -> str:
    """What a refusal says."""
    text = body.decode("utf-8", "replace")
    try:
        return _short(_message(json.loads(text)["error"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return _short(text)


def _message(error: Any) -> str:
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)


def _short(text: str) -> str:
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= _LONGEST_DETAIL else line[: _LONGEST_DETAIL - 3] + "..."


def _nothing() -> None:
    """Nobody listens."""
