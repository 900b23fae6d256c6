import type { Page } from "@playwright/test";
import { ask, beginWith, closeDialog, LONG, openSettings } from "./actions";
import { expectAccessibleInBoth } from "./axe";
import { insideEvent, insideHead, Line } from "./line";
import { expect, test } from "./server";

interface Asked {
  model: string;
  seed: number;
}

/** What is asked of models from now on. */
function requests(page: Page): Asked[] {
  const asked: Asked[] = [];
  page.on("request", (request) => request.url().endsWith("/v1/chat/completions") && asked.push(request.postDataJSON() as Asked));
  return asked;
}

async function texts(page: Page): Promise<string[]> {
  await expect(page.locator(".column .metrics")).toHaveText(Array(3).fill(/^12 tokens/u));
  await expect(page.locator('.column[aria-busy="false"]')).toHaveCount(3);
  return page.locator(".column-body").allInnerTexts();
}

test("three models side by side are asked the same with the same seed, and each answers", async ({ page }) => {
  await beginWith(page, { max_tokens: 12, temperature: 1.5 });
  const asked = requests(page);
  await page.goto("/compare");
  await expect(page.locator(".column")).toHaveCount(2);
  await page.getByRole("button", { name: "Add a model" }).click();
  await expect(page.locator(".column")).toHaveCount(3);
  await ask(page, "What is a bond?");
  const first = await texts(page);
  expect(new Set(asked.map((one) => one.model)).size).toBe(3);
  const seed = asked[0]?.seed;
  expect(Number.isInteger(seed)).toBe(true);
  const same = { seed, temperature: 1.5, max_tokens: 12, messages: [{ role: "user", content: "What is a bond?" }] };
  expect(asked).toEqual(Array(3).fill(expect.objectContaining(same)));
  await expect(page.locator(".seed")).toHaveText(`Seed ${seed}`);
  // The three names are of one folder here: by the same seed they draw the same tokens.
  expect(first[0]?.trim()).not.toBe("");
  expect(new Set(first).size).toBe(1);
  // A seed that is typed is that of all.
  asked.length = 0;
  await openSettings(page);
  await page.getByLabel("Seed", { exact: true }).fill("7");
  await closeDialog(page);
  await ask(page, "What is a bond?");
  await expect.poll(() => asked.map((one) => one.seed)).toEqual([7, 7, 7]);
  await expect.poll(async () => new Set([...first, ...(await texts(page))]).size).toBe(2);
});

test.describe("a line that breaks", () => {
  // The browser reports each break on its console.
  test.use({ problems: async ({}, use) => use([]) });

  test("while the server lives loses nothing of any column", async ({ page, server }) => {
    const line = await Line.to(server.port, [insideEvent(3), insideEvent(3), insideHead]);
    try {
      await beginWith(page, { max_tokens: 120, temperature: 0, seed: 1 });
      await page.goto(`${line.url}/compare`);
      await ask(page, "Tell me everything.");
      await expect(page.locator(".column .metrics")).toHaveText(Array(2).fill(/^120 tokens/u));
      await expect(page.locator('.column[aria-busy="false"]')).toHaveCount(2);
      expect(line.left).toBe(0);
      // As it was written, until the parser of answers has come to both.
      await expect.poll(async () => new Set(await page.locator(".column-body").allInnerTexts()).size).toBe(1);
      await expect(page.getByRole("alert")).toHaveCount(0);
    } finally {
      line.close();
    }
  });

  test("for good leaves what had come, says why there is no more below it, and the model can be asked again", async ({ page, server }) => {
    const line = await Line.to(server.port, [insideEvent(60), insideEvent(60)], true);
    try {
      await beginWith(page, { ...LONG, seed: 1 });
      await page.goto(`${line.url}/compare`);
      // As of a server that has forgotten the answers.
      const gone = { error: { message: "Gone", type: "invalid_request_error", param: null, code: null } };
      await page.route("**/v1/generations/**", (route) => (route.request().method() === "GET" ? route.fulfill({ status: 404, json: gone }) : route.continue()));
      await expect(page.locator(".column")).toHaveCount(2);
      await expectAccessibleInBoth(page, "columns that wait for a question");
      await ask(page, "Tell me everything.");
      const columns = page.locator(".column");
      const lengths = () => columns.locator(".markdown").evaluateAll((all) => all.map((one) => (one as HTMLElement).innerText.length > 40));
      await expect.poll(lengths).toEqual([true, true]);
      line.breakNow();
      for (const column of await columns.all()) {
        await expect(column.getByRole("alert")).toContainText("The connection was lost before the answer was complete. Try again.");
        expect((await column.locator(".markdown").innerText()).length).toBeGreaterThan(40);
      }
      await expectAccessibleInBoth(page, "broken columns");
      await page.setViewportSize({ width: 390, height: 800 });
      // On a phone the columns are below each other, and each as tall as what it says.
      const cut = await page.locator(".column-body").evaluateAll((all) => all.map((one) => one.scrollHeight - one.clientHeight));
      expect(Math.max(...cut)).toBeLessThanOrEqual(1);
      await page.unrouteAll();
      await columns.first().getByRole("button", { name: "Try again" }).click();
      await expect(columns.first()).toHaveAttribute("aria-busy", "true");
      await expect(columns.first().getByRole("alert")).toHaveCount(0);
      await expect(columns.last().getByRole("alert")).toBeVisible();
      await expect(columns.first().locator(".markdown")).not.toBeEmpty();
      await expectAccessibleInBoth(page, "a streaming column beside a broken one");
      await page.getByRole("button", { name: "Stop all" }).click();
      await expect(columns.first()).toContainText("Stopped");
      await expect.poll(() => server.running()).toBe(0);
      await ask(page, "Not waited for.");
      // Only an answer that has begun has a name, by which it is ended.
      for (const column of await columns.all()) await expect(column.locator(".markdown")).not.toBeEmpty();
      expect(await server.running()).toBe(2);
      await page.goto(`${line.url}/info`);
      await expect.poll(() => server.running()).toBe(0);
    } finally {
      line.close();
    }
  });
});
