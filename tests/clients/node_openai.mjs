// OpenAI's own client for Node.js: node node_openai.mjs URL KEY
import assert from "node:assert/strict";
import OpenAI from "openai";

const [url, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "Profit?" }];
const chat = { model: "tiny", messages, max_tokens: 12, seed: 7, logprobs: true, top_logprobs: 2 };

// Chat, whole and streamed.
const whole = await client.chat.completions.create(chat);
const [choice] = whole.choices;
assert.equal(choice.message.role, "assistant");
assert.equal(choice.finish_reason, "length");
assert.equal(whole.usage.completion_tokens, 12);
assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + 12);
assert.equal(choice.logprobs.content.length, 12);
assert.equal(choice.logprobs.content[0].top_logprobs.length, 2);

const options = { stream: true, stream_options: { include_usage: true } };
const ids = new Set();
let text = "";
let usage;
for await (const chunk of await client.chat.completions.create({ ...chat, ...options })) {
  ids.add(chunk.id);
  text += chunk.choices[0]?.delta.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(text, choice.message.content);
assert.deepEqual(usage, whole.usage);
assert.equal(ids.size, 1);

const helper = client.chat.completions.stream(chat);
let deltas = "";
helper.on("content", (delta) => (deltas += delta));
const final = await helper.finalChatCompletion();
assert.equal(deltas, text);
assert.equal(final.choices[0].message.content, text);
assert.equal(final.choices[0].finish_reason, "length");

const several = await client.chat.completions.create({ ...chat, n: 3, temperature: 1 });
assert.deepEqual(
  several.choices.map((c) => c.index),
  [0, 1, 2],
);

// A schema, through the client's own parser.
const schema = {
  type: "object",
  properties: { up: { type: "boolean" } },
  required: ["up"],
  additionalProperties: false,
};
const parsed = await client.chat.completions.parse({
  model: "tiny",
  messages,
  response_format: { type: "json_schema", json_schema: { name: "answer", strict: true, schema } },
});
assert.equal(typeof JSON.parse(parsed.choices[0].message.content).up, "boolean");

// Completions and models.
const prompt = "A bond pays";
const completion = await client.completions.create({ model: "tiny", prompt, max_tokens: 5, seed: 1 });
let continued = "";
for await (const chunk of await client.completions.create({
  model: "tiny",
  prompt,
  max_tokens: 5,
  seed: 1,
  stream: true,
})) {
  continued += chunk.choices[0].text;
}
assert.equal(continued, completion.choices[0].text);
const models = [];
for await (const model of client.models.list()) models.push(model.id);
assert.deepEqual(models, ["tiny"]);
assert.equal((await client.models.retrieve("tiny")).id, "tiny");

// Responses, whole and streamed.
const asked = { model: "tiny", input: "Profit?", max_output_tokens: 12, temperature: 0 };
const response = await client.responses.create(asked);
assert.equal(response.status, "incomplete");
assert.equal(response.incomplete_details.reason, "max_output_tokens");
assert.equal(response.output_text.length > 0, true);
const events = client.responses.stream(asked);
let said = "";
for await (const event of events) {
  if (event.type === "response.output_text.delta") said += event.delta;
}
assert.equal(said, response.output_text);
assert.equal((await events.finalResponse()).output_text, response.output_text);

// Errors are those of the client.
const stranger = new OpenAI({ baseURL: `${url}/v1`, apiKey: "tf-x", maxRetries: 0 });
await assert.rejects(stranger.chat.completions.create(chat), OpenAI.AuthenticationError);
await assert.rejects(
  client.chat.completions.create({ ...chat, model: "none" }),
  (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found",
);
await assert.rejects(
  client.chat.completions.create({ ...chat, temperature: -1 }),
  (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature",
);
await assert.rejects(
  client.chat.completions.create({ ...chat, messages: [{ role: "user", content: "a ".repeat(99) }] }),
  (error) => error.code === "context_length_exceeded",
);
await assert.rejects(
  client.responses.create({ ...asked, previous_response_id: "resp_1" }),
  (error) => error instanceof OpenAI.BadRequestError && error.param === "previous_response_id",
);

// A stream that is aborted ends at once.
const endless = { ...chat, max_tokens: 10_000_000, ignore_eos: true, logprobs: false };
delete endless.top_logprobs;
const stream = await client.chat.completions.create({ ...endless, stream: true });
for await (const chunk of stream) {
  if (chunk.choices[0].delta.content) stream.controller.abort();
}
const aborting = new AbortController();
const waiting = client.chat.completions.create(endless, { signal: aborting.signal });
setTimeout(() => aborting.abort(), 50);
await assert.rejects(waiting, OpenAI.APIUserAbortError);
console.log("all answered");
