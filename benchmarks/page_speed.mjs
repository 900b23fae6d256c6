/** The browser's part of page_speed.py: prints the times of frames and long tasks as JSON.
 *
 *     node page_speed.mjs ADDRESS CHROMIUM SECONDS TOKENS_PER_SECOND MESSAGES SCROLL_SECONDS
 */
import { createServer, request } from "node:http";
import { createRequire } from "node:module";

const { chromium } = createRequire(new URL("../web/package.json", import.meta.url))("@playwright/test");

const [address, executablePath, ...numbers] = process.argv.slice(2);
const [seconds, rate, count, scrollSeconds] = numbers.map(Number);
/** What the answer lasts longer than it is measured: its first words and its end are not. */
const AROUND_S = 2;
const SIZE_OF_A_TOKEN = 4;
const TEXT = `## Bonds and shares

A **bond** is a loan that can be traded: it pays *interest* each year, and its price falls when rates
rise. A share is a part of a company; \`dividends\` are paid from what the company earns.

- The holder of a bond is paid before the holder of a share.
- A share has no day on which its price is paid back.

| Paper | Paid by | Risk |
| --- | --- | --- |
| Bond | interest | 2.5 % |
| Share | dividends | 15 % |

The present value of $n$ payments is

$$PV = \\sum_{t=1}^{n} \\frac{C}{(1 + r)^t}$$

\`\`\`python
def present_value(payment, rate, years):
    return sum(payment / (1 + rate) ** year for year in range(1, years + 1))
\`\`\`

`;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The server's page, with answers of our own that come at a steady rate. */
async function paced() {
  const sent = { endedAt: null };
  const server = createServer((incoming, response) => {
    if (incoming.method === "POST" && incoming.url === "/v1/chat/completions") {
      incoming.resume().on("end", () => void answer(response, sent));
      return;
    }
    const { hostname, port } = new URL(address);
    const passed = request({ hostname, port, path: incoming.url, method: incoming.method, headers: incoming.headers }, (come) => {
      response.writeHead(come.statusCode, come.headers);
      come.pipe(response);
    });
    passed.on("error", () => response.destroy());
    incoming.pipe(passed);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, sent, close: () => (server.closeAllConnections(), server.close()) };
}

async function answer(response, sent) {
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Generation-Id": "chatcmpl-speed" });
  let at = 0;
  const say = (fields) => response.write(`id: ${at}\ndata: ${JSON.stringify({ id: "chatcmpl-speed", object: "chat.completion.chunk", created: 0, model: "sft", ...fields })}\n\n`);
  const choice = (delta, finish_reason = null) => say({ choices: [{ index: 0, delta, logprobs: null, finish_reason }] });
  choice({ role: "assistant", content: "" });
  const all = Math.round(rate * (seconds + AROUND_S));
  const began = performance.now();
  while (at < all) {
    const due = Math.min(all, Math.floor(((performance.now() - began) / 1000) * rate));
    for (; at < due; at++) {
      const from = (at * SIZE_OF_A_TOKEN) % TEXT.length;
      choice({ content: TEXT.slice(from, from + SIZE_OF_A_TOKEN) });
    }
    await pause(1);
  }
  choice({}, "length");
  say({ choices: [], usage: { prompt_tokens: 10, completion_tokens: all, total_tokens: all + 10 } });
  response.end("data: [DONE]\n\n");
  sent.endedAt = performance.now();
}

/** Runs in the page: times of frames and long tasks until `stop`. */
function watch() {
  const seen = { frames: [], tasks: [] };
  const observer = new PerformanceObserver((list) => seen.tasks.push(...list.getEntries().map((entry) => entry.duration)));
  observer.observe({ type: "longtask" });
  let running = true;
  const frame = (time) => {
    seen.frames.push(time);
    if (running) requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  window.pageSpeed = {
    stop() {
      running = false;
      seen.tasks.push(...observer.takeRecords().map((entry) => entry.duration));
      observer.disconnect();
      return seen;
    },
  };
}

const stop = (page) => page.evaluate(() => window.pageSpeed.stop());

async function idle(page, line) {
  await page.goto(line.url);
  await page.getByText("parameters").waitFor();
  await pause(1000);
  await page.evaluate(watch);
  await pause(seconds * 1000);
  return stop(page);
}

async function streaming(page, line) {
  await page.goto(line.url);
  await page.getByLabel("Your message").fill("What is a bond?");
  await page.getByLabel("Your message").press("Enter");
  await page.locator(".message-assistant .markdown table").first().waitFor();
  const length = () => page.locator(".message-assistant .markdown").evaluate((text) => text.textContent.length);
  const before = await length();
  await page.evaluate(watch);
  await pause(seconds * 1000);
  const seen = await stop(page);
  const grown = (await length()) - before;
  if (line.sent.endedAt !== null) throw new Error("the answer ended before the measurement did");
  await page.locator('.message-assistant[aria-busy="false"]').waitFor();
  return { ...seen, shown_characters: grown, end_shown_after_ms: performance.now() - line.sent.endedAt };
}

async function scrolling(page, line) {
  const messages = Array.from({ length: count }, (_, at) => ({
    ...{ id: `m${at}`, conversation: "c", parent: at === 0 ? null : `m${at - 1}`, created: at },
    ...(at % 2 === 0 ? { role: "user", content: `Question ${at}: what is a bond?` } : { role: "assistant", content: TEXT.slice(0, 80 + ((at * 97) % TEXT.length)) }),
  }));
  const conversations = [{ id: "c", title: "Long", created: 0, updated: 0, leaf: `m${count - 1}` }];
  const file = JSON.stringify({ format: "tallyformer-conversations", version: 1, conversations, messages });
  await page.goto(line.url);
  await page.locator('input[type="file"]').setInputFiles({ name: "long.json", mimeType: "application/json", buffer: Buffer.from(file) });
  await page.getByRole("link", { name: "Long" }).click();
  await page.locator(`[aria-posinset="${count}"]`).waitFor();
  await pause(1000);
  const pixels = await page.locator(".scroller").evaluate((box) => box.scrollHeight);
  await page.evaluate(watch);
  for (const [from, to] of [[1, 0], [0, 1]]) {
    await page.locator(".scroller").evaluate(
      (box, [from, to, ms]) =>
        new Promise((resolve) => {
          let began = null;
          const step = (time) => {
            began ??= time;
            const share = Math.min(1, (time - began) / ms);
            box.scrollTop = (from + (to - from) * share) * (box.scrollHeight - box.clientHeight);
            if (share < 1) requestAnimationFrame(step);
            else resolve();
          };
          requestAnimationFrame(step);
        }),
      [from, to, scrollSeconds * 1000],
    );
    await page.locator(`[aria-posinset="${to === 0 ? 1 : count}"]`).waitFor();
  }
  return { ...(await stop(page)), pixels_per_second: pixels / scrollSeconds };
}

const line = await paced();
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
try {
  const found = { chromium: browser.version() };
  for (const [name, measure] of Object.entries({ idle, streaming, scrolling })) {
    // Of its own: nothing of one measurement is in the next one's database.
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
    found[name] = await measure(await context.newPage(), line);
    await context.close();
  }
  process.stdout.write(JSON.stringify(found));
} finally {
  await browser.close();
  line.close();
}
