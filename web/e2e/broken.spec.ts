import { answered, answers, ask, beginWith, LONG } from "./actions";
import { expect, startServer, test } from "./server";

const textOf = (page: Parameters<typeof answers>[0]) => answers(page).last().locator(".markdown").innerText();

test("an answer goes on where it was after a reload", async ({ page, server }) => {
  await beginWith(page, LONG);
  await page.goto("/");
  await ask(page, "Tell me everything.");
  await expect.poll(async () => (await textOf(page)).length).toBeGreaterThan(200);
  // Until the text is in the database.
  await page.waitForTimeout(1200);
  // A tab is shown as a space or as a tab by what markdown makes of the text around it, which grows.
  const beginning = async () => (await textOf(page)).replace(/\s+/g, " ").slice(0, 100);
  const before = await beginning();
  await page.reload();
  await expect.poll(async () => (await textOf(page)).length).toBeGreaterThan(400);
  expect(await beginning()).toBe(before);
  await expect(page.getByRole("button", { name: "Stop the answer" })).toBeVisible();
  expect(await server.running()).toBe(1);
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
