import type { Page } from "@playwright/test";
import { ask, beginWith, closeDialog, openSettings } from "./actions";
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
