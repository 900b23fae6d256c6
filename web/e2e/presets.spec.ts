import { readFile } from "node:fs/promises";
import type { Page } from "@playwright/test";
import { answered, ask, beginWith, closeDialog, importFile, openSettings } from "./actions";
import { expect, test } from "./server";

const preset = (page: Page) => page.getByRole("combobox", { name: "Preset" });
const temperature = (page: Page) => page.getByLabel("Temperature", { exact: true });

async function choose(page: Page, name: string): Promise<void> {
  await preset(page).click();
  await page.getByRole("option", { name, exact: true }).click();
  await expect(preset(page)).toHaveText(name);
}

test("a preset is saved, there after a reload, chosen in another conversation, and deleted for good", async ({ page }) => {
  await beginWith(page);
  await page.goto("/");
  await openSettings(page);
  await expect(page.getByRole("button", { name: "Save as preset" })).toBeDisabled();
  await temperature(page).fill("0.35");
  await page.getByLabel("Top-k").fill("3");
  await page.getByLabel("Seed", { exact: true }).fill("5");
  await page.getByLabel("Preset name").fill("  Mine ");
  await page.getByRole("button", { name: "Save as preset" }).click();
  await expect(preset(page)).toHaveText("Mine");
  await closeDialog(page);
  await page.reload();
  await openSettings(page);
  await choose(page, "Creative");
  await expect(temperature(page)).toHaveValue("1");
  await choose(page, "Mine");
  await expect(temperature(page)).toHaveValue("0.35");
  await expect(page.getByLabel("Top-k")).toHaveValue("3");
  // A preset is how tokens are drawn; the rest is as it was.
  await expect(page.getByLabel("Seed", { exact: true })).toHaveValue("");
  await closeDialog(page);
  const sent = page.waitForRequest((request) => request.url().endsWith("/v1/chat/completions"));
  await ask(page, "Hello");
  expect((await sent).postDataJSON()).toMatchObject({ temperature: 0.35, top_k: 3, max_tokens: 12 });
  await answered(page, 1);
  await openSettings(page);
  await page.getByRole("button", { name: "Delete the preset Mine" }).click();
  await expect(page.getByRole("button", { name: /^Delete the preset/u })).toHaveCount(0);
  // The conversation's settings stay.
  await expect(temperature(page)).toHaveValue("0.35");
  await page.reload();
  await openSettings(page);
  await expect(temperature(page)).toHaveValue("0.35");
  await preset(page).click();
  await expect(page.getByRole("option", { name: "Precise" })).toBeVisible();
  await expect(page.getByRole("option", { name: "Mine" })).toHaveCount(0);
});

test("presets and the settings of new conversations go with an export of everything into another browser", async ({ page, browser, server }) => {
  await page.goto("/");
  await openSettings(page);
  await temperature(page).fill("0.35");
  await page.getByLabel("Preset name").fill("Mine");
  await page.getByRole("button", { name: "Save as preset" }).click();
  await page.getByRole("button", { name: "Use for new conversations" }).click();
  await closeDialog(page);
  await page.getByRole("button", { name: "Menu" }).click();
  const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("menuitem", { name: "Export everything" }).click()]);
  const content: unknown = JSON.parse(await readFile(await file.path(), "utf8"));
  const context = await browser.newContext();
  const other = await context.newPage();
  await other.goto(server.url);
  await importFile(other, content);
  await expect(other.getByText("and 1 preset imported.").first()).toBeVisible();
  await other.reload();
  await openSettings(other);
  await expect(temperature(other)).toHaveValue("0.35");
  await expect(preset(other)).toHaveText("Mine");
  await context.close();
});
