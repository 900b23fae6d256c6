/** Keys that work anywhere, and what they leave alone. */
import { answered, answers, ask, beginWith, box, LONG } from "./actions";
import { expectAccessibleInBoth } from "./axe";
import { expect, test } from "./server";

test("keys lead to a new chat, the search, the message, the sidebar and the list of them", async ({ page }) => {
  await beginWith(page);
  await page.goto("/");
  await ask(page, "What is a share?");
  await answered(page, 1);
  await page.keyboard.press("Control+k");
  const search = page.getByLabel("Search conversations");
  await expect(search).toBeFocused();
  await page.keyboard.press("Shift+Escape");
  await expect(box(page)).toBeFocused();
  await page.keyboard.press("Control+Shift+S");
  await expect(search).toBeHidden();
  // It opens the sidebar first.
  await page.keyboard.press("Control+k");
  await expect(search).toBeFocused();
  await page.keyboard.press("Control+Shift+O");
  await expect(page.getByRole("heading", { name: "What would you like to know" })).toBeVisible();
  await expect(box(page)).toBeFocused();
  await page.keyboard.press("Control+/");
  const list = page.getByRole("dialog", { name: "Keyboard shortcuts" });
  await expect(list.locator("dd").first()).toHaveText("Ctrl Shift O");
  await expectAccessibleInBoth(page, "list of shortcuts");
  // While something is open, the page below it does nothing.
  await page.keyboard.press("Control+k");
  await expect(list.getByRole("button", { name: "Close" })).toBeFocused();
  await page.keyboard.press("Escape");
  await expect(list).toBeHidden();
  await expect(box(page)).toBeFocused();
  await page.getByRole("button", { name: "Menu" }).click();
  await page.getByRole("menuitem", { name: "Keyboard shortcuts" }).click();
  await expect(list).toBeVisible();
});

test("on a phone with a keyboard the search opens the sidebar", async ({ page }) => {
  await page.setViewportSize({ width: 390, height: 844 });
  await page.goto("/");
  await expect(page.getByText("parameters")).toBeVisible();
  await page.keyboard.press("Control+k");
  await expect(page.getByLabel("Search conversations")).toBeFocused();
});

test("Escape stops the answer, but not where it closes something else", async ({ page, server }) => {
  await beginWith(page, LONG);
  await page.goto("/");
  await ask(page, "Tell me everything.");
  await expect(answers(page).last().locator(".markdown")).not.toBeEmpty();
  await page.getByRole("button", { name: "Actions for Tell me everything." }).click();
  await expect(page.getByRole("menuitem", { name: "Rename" })).toBeVisible();
  await page.keyboard.press("Escape");
  await expect(page.getByRole("menuitem", { name: "Rename" })).toBeHidden();
  await page.getByRole("combobox", { name: "Model" }).click();
  await expect(page.getByRole("option").first()).toBeVisible();
  await page.keyboard.press("Escape");
  await expect(page.getByRole("option")).toHaveCount(0);
  await page.getByLabel("Search conversations").fill("every");
  await page.keyboard.press("Escape");
  await expect(page.getByLabel("Search conversations")).toHaveValue("");
  expect(await server.running()).toBe(1);
  await box(page).focus();
  // An input method closes its list with it.
  await box(page).dispatchEvent("keydown", { key: "Escape", isComposing: true });
  await box(page).dispatchEvent("keydown", { key: "Escape", keyCode: 229 });
  expect(await server.running()).toBe(1);
  await page.keyboard.press("Escape");
  await answered(page, 1);
  await expect(answers(page).last()).toContainText("Stopped");
  await expect.poll(() => server.running()).toBe(0);
});
