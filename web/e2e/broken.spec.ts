import type { Page } from "@playwright/test";
import { answered, answers, ask, beginWith, LONG, stored } from "./actions";
import { expectAccessibleInBoth } from "./axe";
import { insideEvent, insideHead, Line } from "./line";
import { expect, startServer, test } from "./server";

const textOf = (page: Page) => answers(page).last().locator(".markdown").innerText();

test("an answer goes on where it was after a reload", async ({ page, server }) => {
  await beginWith(page, LONG);
  await page.goto("/");
  await ask(page, "Tell me everything.");
  await expect.poll(async () => (await textOf(page)).length).toBeGreaterThan(200);
  await expect.poll(async () => ((await stored(page, "partials"))[0]?.text as string | undefined)?.length ?? 0).toBeGreaterThan(200);
  // A tab is shown as a space or as a tab by what markdown makes of the text around it, which grows.
  const beginning = async () => (await textOf(page)).replace(/\s+/g, " ").slice(0, 100);
  const before = await beginning();
  await page.reload();
  await expect.poll(async () => (await textOf(page)).length).toBeGreaterThan(400);
  expect(await beginning()).toBe(before);
  await expect(page.getByRole("button", { name: "Stop the answer" })).toBeVisible();
  expect(await server.running()).toBe(1);
  await expectAccessibleInBoth(page, "joined again after a reload");
  await page.getByRole("button", { name: "Stop the answer" }).click();
  await answered(page, 1);
  await expect.poll(() => server.running()).toBe(0);
});

test.describe("a server that goes away", () => {
  // The browser reports the refused connections on its console.
  test.use({ problems: async ({}, use) => use([]) });

  test("in mid-answer leaves what had come, says so, and answers again when it is back", async ({ page }) => {
    test.setTimeout(120_000);
    const own = await startServer();
    try {
      await beginWith(page, LONG);
      await page.goto(own.url);
      await ask(page, "Tell me everything.");
      await expect.poll(async () => (await textOf(page)).length).toBeGreaterThan(100);
      await own.kill("SIGKILL");
      await expect(answers(page).last()).toContainText("The server cannot be reached.", { timeout: 40_000 });
      expect((await textOf(page)).length).toBeGreaterThan(100);
      await expectAccessibleInBoth(page, "the server is gone");
      await own.start();
      await page.getByRole("button", { name: "Try again" }).click();
      await page.getByRole("button", { name: "Stop the answer" }).click();
      await answered(page, 1);
      await expect(answers(page).locator(".branches")).toHaveText("2 of 2");
    } finally {
      await own.kill("SIGKILL");
    }
  });
});

test.describe("a line that breaks while the server lives", () => {
  // The browser reports each break on its console.
  test.use({ problems: async ({}, use) => use([]) });

  test("in mid-answer, again and again, loses nothing of the answer and repeats nothing", async ({ page, server }) => {
    const settings = { max_tokens: 300, temperature: 0 };
    // In the first answer, in one that was joined again, in the head of one, and then at once. An answer has at least five
    // events, however few its words come in, so that every break is reached.
    const line = await Line.to(server.port, [insideEvent(3), insideEvent(2), insideHead, insideEvent(1)]);
    try {
      await beginWith(page, settings);
      await page.goto(line.url);
      await ask(page, "Tell me everything.");
      await answered(page, 1);
      expect(line.left).toBe(0);
      const [first, ...joined] = line.asked;
      expect(first).toBe("POST /v1/chat/completions");
      expect(joined.length).toBeGreaterThanOrEqual(4);
      await expect(answers(page).last()).toContainText("300 tokens");
      const asked = await fetch(`${server.url}/v1/chat/completions`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ model: "sft", messages: [{ role: "user", content: "Tell me everything." }], ...settings }),
      });
      const whole = ((await asked.json()) as { choices: [{ message: { content: string } }] }).choices[0].message.content;
      expect(whole.length).toBeGreaterThan(300);
      expect(await kept(page)).toEqual([{ content: whole, status: "done", finish: "length" }]);
    } finally {
      line.close();
    }
  });
});

test.describe("a line that breaks for good", () => {
  // The browser reports it on its console.
  test.use({ problems: async ({}, use) => use([]) });

  test("leaves an answer that can be continued, and says so", async ({ page, server }) => {
    const line = await Line.to(server.port, [insideEvent(3)], true);
    try {
      await beginWith(page);
      await page.goto(line.url);
      // As of a server that does not have the answer any more.
      const gone = { error: { message: "Gone", type: "invalid_request_error", param: null, code: null } };
      await page.route("**/v1/generations/**", (route) => (route.request().method() === "GET" ? route.fulfill({ status: 404, json: gone }) : route.continue()));
      await ask(page, "Tell me everything.");
      await expect(answers(page).last().locator(".markdown")).not.toBeEmpty();
      line.breakNow();
      await expect(answers(page).last().getByRole("alert")).toContainText("The connection was lost before the answer was complete. Continue it, or try again.");
      await expect(answers(page).last().locator(".message-end")).toHaveText("Interrupted");
      const before = (await textOf(page)).length;
      await page.unrouteAll();
      await page.getByRole("button", { name: "Continue", exact: true }).click();
      await expect.poll(async () => (await textOf(page)).length).toBeGreaterThan(before);
      await answered(page, 1);
      await expect(answers(page).last().getByRole("alert")).toHaveCount(0);
    } finally {
      line.close();
    }
  });
});

/** The answers as the page's database has them, to the letter. */
async function kept(page: Page): Promise<unknown> {
  const all = await stored(page, "messages");
  return all.filter((one) => one.role === "assistant").map(({ content, status, finish }) => ({ content, status, finish }));
}
