import { readFile } from "node:fs/promises";
import { answered, answers, ask, beginWith, box, closeDialog, importFile, openSettings } from "./actions";
import { expectAccessibleInBoth } from "./axe";
import { expect, test } from "./server";

test.beforeEach(async ({ page }) => {
  await beginWith(page);
  await page.goto("/");
});

test("conversations are renamed, searched, forked, and deleted with a way back", async ({ page }) => {
  await ask(page, "What is a share?");
  await answered(page, 1);
  await page.getByRole("button", { name: "Actions for What is a share?" }).click();
  await page.getByRole("menuitem", { name: "Rename" }).click();
  await page.getByRole("textbox", { name: "Rename" }).fill("Shares");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("link", { name: "Shares" })).toBeVisible();
  await page.getByLabel("Search conversations").fill("nowhere");
  await expect(page.getByText("No conversation contains these words.")).toBeVisible();
  await page.getByLabel("Search conversations").fill("WHAT share");
  await expect(page.getByRole("link", { name: "Shares" })).toBeVisible();
  await page.getByLabel("Search conversations").fill("");
  await page.getByRole("button", { name: "Actions for Shares" }).click();
  await page.getByRole("menuitem", { name: "Fork" }).click();
  await expect(page.getByRole("link", { name: "Shares (fork)" })).toBeVisible();
  await expect(page.locator(".message")).toHaveCount(2);
  await page.getByRole("button", { name: "Actions for Shares (fork)" }).click();
  await page.getByRole("menuitem", { name: "Delete" }).click();
  await expect(page.getByRole("link", { name: "Shares (fork)" })).toBeHidden();
  await page.getByRole("button", { name: "Undo" }).click();
  await expect(page.getByRole("link", { name: "Shares (fork)" })).toBeVisible();
});

test("what is exported is imported whole, branches too", async ({ page }) => {
  await ask(page, "One");
  await answered(page, 1);
  await page.getByRole("button", { name: "Answer again" }).click();
  await expect(page.locator(".branches")).toHaveText("2 of 2");
  await answered(page, 1);
  await page.getByRole("button", { name: "Menu" }).click();
  const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("menuitem", { name: "Export everything" }).click()]);
  const content: unknown = JSON.parse(await readFile(await file.path(), "utf8"));
  await page.getByRole("button", { name: "Menu" }).click();
  await page.getByRole("menuitem", { name: "Delete all conversations" }).click();
  await page.getByRole("button", { name: "Delete", exact: true }).click();
  await expect(page.getByText("Your conversations appear here.")).toBeVisible();
  await importFile(page, content);
  await page.getByRole("link", { name: "One" }).click();
  await expect(page.locator(".branches")).toHaveText("2 of 2");
});

test("two tabs show the same history", async ({ page, context }) => {
  const other = await context.newPage();
  await other.goto("/");
  await ask(page, "Seen in both");
  await other.getByRole("link", { name: "Seen in both" }).click();
  await answered(page, 1);
  await answered(other, 1);
});

test("what is not an export says so", async ({ page }) => {
  await importFile(page, { conversations: [{ id: 1 }] });
  await expect(page.getByText("This file is not an export of this page.").first()).toBeVisible();
  await expectAccessibleInBoth(page, "not an export");
});

test("what is being written belongs to its conversation, and survives a reload", async ({ page }) => {
  await ask(page, "First");
  await answered(page, 1);
  await box(page).fill("More of the first");
  await page.getByRole("link", { name: "New chat" }).click();
  await expect(box(page)).toHaveValue("");
  await box(page).fill("Something new");
  await page.getByRole("link", { name: "First" }).click();
  await expect(box(page)).toHaveValue("More of the first");
  await page.reload();
  await expect(box(page)).toHaveValue("More of the first");
  // Once the conversation has been read.
  await expect(page.locator(".composer .send")).toBeEnabled();
  await box(page).press("Enter");
  await answered(page, 2);
  await page.reload();
  await expect(answers(page)).toHaveCount(2);
  await expect(box(page)).toHaveValue("");
  await page.getByRole("link", { name: "New chat" }).click();
  await expect(box(page)).toHaveValue("Something new");
  await page.getByRole("button", { name: "Menu" }).click();
  await page.getByRole("menuitem", { name: "Delete all conversations" }).click();
  await page.getByRole("button", { name: "Delete", exact: true }).click();
  await expect(page.getByText("Your conversations appear here.")).toBeVisible();
  await page.reload();
  await expect(box(page)).toHaveValue("");
});

test("settings of one new conversation are not those of the next", async ({ page }) => {
  await openSettings(page);
  await page.getByLabel("Top-k").fill("7");
  await closeDialog(page);
  await ask(page, "First");
  await answered(page, 1);
  await page.getByRole("link", { name: "New chat" }).click();
  await expect(page.getByRole("heading", { name: "What would you like to know" })).toBeVisible();
  await openSettings(page);
  await expect(page.getByLabel("Top-k")).toHaveValue("");
});

test("each page has a title of its own", async ({ page }) => {
  await ask(page, "What is a share?");
  await expect(page).toHaveTitle("What is a share? – TallyFormer");
  await page.getByRole("link", { name: "Compare models" }).click();
  await expect(page).toHaveTitle("Compare models – TallyFormer");
  await page.getByRole("link", { name: "Models", exact: true }).click();
  await expect(page).toHaveTitle("Models on this server – TallyFormer");
  await page.getByRole("link", { name: "New chat" }).click();
  await expect(page).toHaveTitle("TallyFormer");
  await page.goto("/c/unknown");
  await expect(page).toHaveTitle("This conversation is not here – TallyFormer");
});
