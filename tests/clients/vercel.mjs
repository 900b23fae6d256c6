// The Vercel AI SDK with its provider for compatible servers: node vercel.mjs URL KEY
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, Output, streamText } from "ai";

const [url, apiKey] = process.argv.slice(2);
const settings = { name: "tallyformer", baseURL: `${url}/v1`, supportsStructuredOutputs: true };
const provider = createOpenAICompatible({ ...settings, apiKey, includeUsage: true });
const asked = { model: provider("tiny"), prompt: "Profit?", maxOutputTokens: 12, seed: 7, maxRetries: 0 };

const whole = await generateText(asked);
assert.equal(whole.finishReason, "length");
assert.equal(whole.usage.outputTokens, 12);
assert.equal(whole.text.length > 0, true);

const stream = streamText(asked);
let text = "";
for await (const delta of stream.textStream) text += delta;
assert.equal(text, whole.text);
assert.equal(await stream.finishReason, "length");
assert.equal((await stream.usage).outputTokens, 12);

const turns = await generateText({
  ...asked,
  prompt: undefined,
  messages: [
    { role: "user", content: "A?" },
    { role: "assistant", content: "B" },
    { role: "user", content: [{ type: "text", text: "C?" }] },
  ],
});
assert.equal(turns.finishReason, "length");

const continued = await generateText({ ...asked, model: provider.completionModel("tiny") });
assert.equal(continued.usage.outputTokens, 12);

const schema = jsonSchema({
  type: "object",
  properties: { up: { type: "boolean" } },
  required: ["up"],
  additionalProperties: false,
});
const { output } = await generateText({
  ...asked,
  maxOutputTokens: undefined,
  output: Output.object({ schema }),
});
assert.equal(typeof output.up, "boolean");

await assert.rejects(
  generateText({ ...asked, model: provider("none") }),
  (error) => error.statusCode === 404 && /no model of this name/.test(error.message),
);
const stranger = createOpenAICompatible({ ...settings, apiKey: "tf-x" });
await assert.rejects(
  generateText({ ...asked, model: stranger("tiny") }),
  (error) => error.statusCode === 401,
);
const errors = [];
const refused = streamText({
  ...asked,
  model: provider("none"),
  onError: ({ error }) => errors.push(error.statusCode),
});
await refused.consumeStream();
assert.deepEqual(errors, [404]);

const aborting = new AbortController();
const options = { tallyformer: { ignore_eos: true } };
const endless = streamText({
  ...asked,
  maxOutputTokens: 10_000_000,
  providerOptions: options,
  abortSignal: aborting.signal,
});
let parts = 0;
for await (const delta of endless.textStream) {
  parts += delta.length > 0;
  if (parts === 3) aborting.abort();
}
assert.equal(parts >= 3, true);
console.log("all answered");
