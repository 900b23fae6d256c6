"""LangChain's client: langchain_client.py URL KEY."""

from __future__ import annotations

import asyncio
import sys

import openai
from langchain_openai import ChatOpenAI, OpenAI

url, key = sys.argv[1:]
shared = {"base_url": f"{url}/v1", "api_key": key, "model": "tiny", "max_retries": 0, "seed": 7}
chat = ChatOpenAI(**shared, max_completion_tokens=12)

whole = chat.invoke("Profit?")
assert whole.content
assert whole.usage_metadata["output_tokens"] == 12
assert whole.response_metadata["finish_reason"] == "length"
chunks = list(chat.stream("Profit?", stream_usage=True))
assert "".join(chunk.content for chunk in chunks) == whole.content
assert sum(c.usage_metadata["output_tokens"] for c in chunks if c.usage_metadata) == 12
assert [answer.content for answer in chat.batch(["Profit?"] * 3)] == [whole.content] * 3
turns = [("system", "Be brief."), ("human", "Profit?"), ("ai", "Yes."), ("human", "Cost?")]
assert chat.invoke(turns).content


async def same() -> None:
    assert (await chat.ainvoke("Profit?")).content == whole.content
    streamed = [chunk.content async for chunk in chat.astream("Profit?")]
    assert "".join(streamed) == whole.content


asyncio.run(same())

by_responses = ChatOpenAI(**{**shared, "seed": None}, use_responses_api=True, temperature=0)
answer = by_responses.invoke("Profit?")
assert answer.text
assert "".join(part.text for part in by_responses.stream("Profit?")) == answer.text

schema = {"title": "Answer", "type": "object", "properties": {"up": {"type": "boolean"}}}
schema |= {"required": ["up"], "additionalProperties": False}
structured = ChatOpenAI(**shared).with_structured_output(schema, method="json_schema")
assert isinstance(structured.invoke("Up?")["up"], bool)

counted = ChatOpenAI(**shared, logprobs=True, max_completion_tokens=3).invoke("Profit?")
assert len(counted.response_metadata["logprobs"]["content"]) == 3

text = OpenAI(**shared, max_tokens=5)
continued = text.invoke("A bond pays")
assert "".join(text.stream("A bond pays")) == continued
assert text.batch(["A bond pays", "A share"])[0] == continued

try:
    ChatOpenAI(**{**shared, "model": "none"}).invoke("Profit?")
    raise AssertionError("an unknown model was answered")
except openai.NotFoundError as error:
    assert error.code == "model_not_found"
print("all answered")
