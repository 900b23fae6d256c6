/** States that a page is seldom in: slow and broken lines, full storage, long queues, hosts without TLS. */
import { readFile } from "node:fs/promises";
import type { Page } from "@playwright/test";
import { answered, answers, ask, beginWith, box, importFile, LONG, stored } from "./actions";
import { expectAccessibleInBoth } from "./axe";
import { expect, LAN_NAME, type Server, startServer, test } from "./server";

const textOf = (page: Page) => answers(page).last().locator(".markdown").innerText();

test("on a slow line the page comes, and answers stream", async ({ page }) => {
  await beginWith(page, LONG);
  const line = await page.context().newCDPSession(page);
  await line.send("Network.enable");
  // 1 Mbit/s and 300 ms.
  await line.send("Network.emulateNetworkConditions", { offline: false, latency: 300, downloadThroughput: 125_000, uploadThroughput: 60_000 });
  await page.goto("/", { waitUntil: "commit" });
  await expect(page.getByRole("heading", { name: "What would you like to know" })).toBeVisible();
  await expect(page.getByText("parameters")).toBeVisible();
  await ask(page, "Tell me everything.");
  const lengths = new Set<number>();
  await expect.poll(async () => lengths.add((await textOf(page)).length).size).toBeGreaterThan(4);
  await page.getByRole("button", { name: "Stop the answer" }).click();
  await answered(page, 1);
});

test.describe("on plain HTTP in a local network", () => {
  // There the browser leaves out a header that isolates the page, and says so on its console.
  test.use({ problems: async ({}, use) => use([]) });

  test("everything works that needs a secure context elsewhere", async ({ page, server }) => {
    await beginWith(page);
    await page.goto(`http://${LAN_NAME}:${server.port}/`);
    expect(await page.evaluate(() => [isSecureContext, "randomUUID" in crypto, "clipboard" in navigator])).toEqual([false, false, false]);
    await ask(page, "What is a bond?");
    await answered(page, 1);
    const text = await answers(page).last().locator(".markdown").innerText();
    await answers(page).getByRole("button", { name: "Copy" }).click();
    await expect(page.getByText("Copied", { exact: true }).first()).toBeVisible();
    await expect(answers(page).getByRole("button", { name: "Copy" })).toBeFocused();
    await box(page).focus();
    await page.keyboard.press("Control+V");
    expect((await box(page).inputValue()).replace(/\s+/gu, "")).toBe(text.replace(/\s+/gu, ""));
    await box(page).fill("");
    await page.getByRole("button", { name: "Answer again" }).click();
    await expect(answers(page).locator(".branches")).toHaveText("2 of 2");
    await answered(page, 1);
    await page.reload();
    await expect(answers(page).locator(".branches")).toHaveText("2 of 2");
  });
});

test("an answer shows in another tab while it streams, and two tabs answer at once", async ({ page, context, server }) => {
  await beginWith(page, LONG);
  await page.goto("/");
  await ask(page, "First tab");
  await expect.poll(async () => (await textOf(page)).length).toBeGreaterThan(200);
  const other = await context.newPage();
  await other.goto(page.url());
  await expect(answers(other).last()).toHaveAttribute("aria-busy", "true");
  await other.getByRole("link", { name: "New chat" }).click();
  await ask(other, "Second tab");
  await expect.poll(async () => (await textOf(other)).length).toBeGreaterThan(200);
  expect(await server.running()).toBe(2);
  await page.getByRole("button", { name: "Stop the answer" }).click();
  await answered(page, 1);
  await expect.poll(() => server.running()).toBe(1);
  await other.getByRole("link", { name: "First tab" }).click();
  await answered(other, 1);
  await expect(answers(other).last()).toContainText("Stopped");
  await other.getByRole("link", { name: "Second tab" }).click();
  await other.getByRole("button", { name: "Stop the answer" }).click();
  await expect.poll(() => server.running()).toBe(0);
});

test("an answer that another tab makes is shown, and stopped, here", async ({ page, context, server }) => {
  await beginWith(page, LONG);
  await page.goto("/");
  await ask(page, "Made in one tab");
  await expect.poll(async () => (await textOf(page)).length).toBeGreaterThan(200);
  const other = await context.newPage();
  await other.goto(page.url());
  await expect.poll(async () => (await textOf(other)).length).toBeGreaterThan(200);
  await other.getByRole("button", { name: "Stop the answer" }).click();
  await expect.poll(() => server.running()).toBe(0);
  for (const tab of [other, page]) {
    await answered(tab, 1);
    await expect(answers(tab).last()).toContainText("Stopped");
    await expect(answers(tab).last().getByRole("alert")).toHaveCount(0);
  }
});

test("an answer that is deleted while it is made holds no place at the server", async ({ page, server }) => {
  await beginWith(page, LONG);
  await page.goto("/");
  await ask(page, "Not wanted");
  await expect.poll(() => server.running()).toBe(1);
  await page.getByRole("button", { name: "Actions for Not wanted" }).click();
  await page.getByRole("menuitem", { name: "Delete" }).click();
  await expect.poll(() => server.running()).toBe(0);
});

test.describe("with problems that the browser reports on its console", () => {
  test.use({ problems: async ({}, use) => use([]) });

  test("offline says so, keeps the question, and answers it once the line is back", async ({ page, context }) => {
    await beginWith(page);
    await page.goto("/");
    await expect(page.getByText("parameters")).toBeVisible();
    await context.setOffline(true);
    await ask(page, "Is anybody there?");
    await expect(answers(page).last()).toContainText("The server cannot be reached.");
    await expect(page.locator(".bubble")).toHaveText("Is anybody there?");
    await expectAccessibleInBoth(page, "offline");
    await context.setOffline(false);
    await page.getByRole("button", { name: "Try again" }).click();
    await answered(page, 1);
    await expect(answers(page).last()).toContainText("12 tokens");
  });

  test("full storage says what to do, and the draft stays", async ({ page }) => {
    await beginWith(page);
    await page.goto("/");
    await expect(page.getByText("parameters")).toBeVisible();
    const line = await page.context().newCDPSession(page);
    await line.send("Storage.overrideQuotaForOrigin", { origin: new URL(page.url()).origin, quotaSize: 1 });
    const draft = "A long question. ".repeat(20_000);
    await ask(page, draft);
    await expect(page.getByText("The storage of this browser is full.").first()).toBeVisible();
    await expect(box(page)).toHaveValue(draft);
    await expectAccessibleInBoth(page, "full storage");
    const messages = [{ id: "a", conversation: "c", parent: null, role: "user", content: "words ".repeat(100_000), created: 1 }];
    await importFile(page, { format: "tallyformer-conversations", version: 1, conversations: [{ id: "c", title: "Large", created: 0, updated: 0, leaf: "a" }], messages });
    await expect(page.getByText("The storage of this browser is full.").nth(1)).toBeVisible();
    await expect(page.getByRole("link", { name: "Large" })).toHaveCount(0);
    await line.send("Storage.overrideQuotaForOrigin", { origin: new URL(page.url()).origin });
    await ask(page, "Short");
    await answered(page, 1);
  });

  test("storage that fills up in mid-answer leaves the whole answer in the page, which says so, and keeps it once there is room", async ({ page }) => {
    // With its probabilities an answer takes far more room than its question.
    await beginWith(page, { max_tokens: 3000, temperature: 0, probabilities: true });
    await page.goto("/");
    await expect(page.getByText("parameters")).toBeVisible();
    const line = await page.context().newCDPSession(page);
    const { origin } = new URL(page.url());
    await line.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: 200_000 });
    const asked: string[] = [];
    page.on("request", (request) => request.url().includes("/v1/generations/") && asked.push(request.url()));
    await ask(page, "Tell me everything.");
    const warning = answers(page).last().getByRole("alert");
    await expect(warning).toContainText("The storage of this browser is full, so this answer is not kept yet.");
    await answered(page, 1);
    await expect(answers(page).last()).toContainText("3,000 tokens");
    await expect(page.getByRole("button", { name: "Send" })).toBeVisible();
    await expectAccessibleInBoth(page, "an answer that is not kept");
    const text = await textOf(page);
    // An export has it nevertheless.
    await page.getByRole("button", { name: "Menu" }).click();
    const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("menuitem", { name: "Export everything" }).click()]);
    const { messages } = JSON.parse(await readFile(await file.path(), "utf8")) as { messages: { tokens?: unknown[] }[] };
    expect(messages.map((one) => one.tokens?.length)).toContain(3000);
    await line.send("Storage.overrideQuotaForOrigin", { origin });
    await expect(warning).toHaveCount(0);
    // It was never asked for again, nor is it now.
    expect(asked).toEqual([]);
    await page.reload();
    // As it was written, until the parser of answers has come.
    await expect.poll(() => textOf(page)).toBe(text);
    await expect(answers(page).last()).toContainText("3,000 tokens");
  });

  test("a queued answer survives a reload, a full queue says when to try again, and Stop leaves the queue", async ({ page }) => {
    test.setTimeout(120_000);
    const own = await startServer("--max-waiting", "1");
    try {
      const leave = await fill(own);
      await beginWith(page);
      await page.goto(own.url);
      await ask(page, "Next, please");
      await expect(answers(page).last().locator(".waiting")).toBeVisible();
      await expect.poll(() => own.waiting()).toBe(1);
      // It is found again by its name.
      await expect.poll(async () => (await stored(page, "partials"))[0]?.place).toBeTruthy();
      await page.reload();
      await expect(answers(page).last().locator(".waiting")).toBeVisible();
      expect(await own.waiting()).toBe(1);
      await expectAccessibleInBoth(page, "in the queue");
      const other = await page.context().newPage();
      await other.goto(own.url);
      await ask(other, "One too many");
      await expect(answers(other).last()).toContainText(/The server is busy\. Try again in \d+ s\./);
      await expectAccessibleInBoth(other, "429");
      await page.getByRole("button", { name: "Stop the answer" }).click();
      await answered(page, 1);
      await expect.poll(() => own.waiting()).toBe(0);
      await page.getByRole("button", { name: "Answer again" }).click();
      await expect.poll(() => own.waiting()).toBe(1);
      leave();
      await answered(page, 1);
      await expect(answers(page).last()).toContainText("12 tokens");
    } finally {
      await own.kill("SIGKILL");
    }
  });
});

/** Takes every place of the first model; what is returned leaves them. */
async function fill(server: Server): Promise<() => void> {
  const controller = new AbortController();
  const body = JSON.stringify({ model: "sft", messages: [{ role: "user", content: "Go on" }], max_tokens: 1_000_000, temperature: 0, stream: true });
  const places = await server.sum("tallyformer_slots", "sft");
  for (let place = 0; place < places; place++) {
    void fetch(`${server.url}/v1/chat/completions`, { method: "POST", body, headers: { "Content-Type": "application/json" }, signal: controller.signal })
      .then((response) => response.body?.pipeTo(new WritableStream()))
      .catch(() => undefined);
  }
  await expect.poll(() => server.running()).toBe(places);
  return () => controller.abort();
}
