import type { Page } from "@playwright/test";
import { answered, answers, ask, beginWith, box, closeDialog, importFile, LONG, openSettings } from "./actions";
import { expect, test } from "./server";

/** Something on the page has the focus, and not the page as a whole. */
const expectFocusKept = (page: Page) => expect.poll(() => page.evaluate(() => document.activeElement?.tagName)).not.toBe("BODY");

async function press(page: Page, name: string, role: "button" | "menuitem" = "button"): Promise<void> {
  await page.getByRole(role, { name, exact: true }).last().focus();
  await page.keyboard.press("Enter");
}

test("the focus stays in the page when what had it goes away", async ({ page }) => {
  await beginWith(page);
  await page.goto("/");
  await ask(page, "First wording");
  await answered(page, 1);
  await expect(box(page)).toBeFocused();
  await press(page, "Edit");
  await page.keyboard.press("Escape");
  await expect(page.getByRole("button", { name: "Edit" })).toBeFocused();
  await press(page, "Answer again");
  await answered(page, 1);
  await expectFocusKept(page);
  await press(page, "Previous version");
  await expect(answers(page).locator(".branches")).toHaveText("1 of 2");
  // The arrow that was pressed has nowhere to lead any more; the other one leads back.
  await expect(page.getByRole("button", { name: "Next version" })).toBeFocused();
  await openSettings(page);
  await closeDialog(page);
  await expect(page.getByRole("button", { name: "Settings", exact: true })).toBeFocused();
  await page.getByRole("button", { name: "Menu", exact: true }).focus();
  await page.keyboard.press("Enter");
  await press(page, "API key…", "menuitem");
  await closeDialog(page);
  await expectFocusKept(page);
  await answers(page).getByRole("button", { name: "More actions" }).focus();
  await page.keyboard.press("Enter");
  await press(page, "Delete from here", "menuitem");
  await press(page, "Delete");
  await expect(answers(page).locator(".branches")).toHaveCount(0);
  await expectFocusKept(page);
  await press(page, "Actions for First wording");
  await press(page, "Rename", "menuitem");
  await page.keyboard.press("Enter");
  await expectFocusKept(page);
  await press(page, "Actions for First wording");
  await press(page, "Delete", "menuitem");
  await expect(page.getByText("Your conversations appear here.")).toBeVisible();
  await expectFocusKept(page);
  // A click beside everything gives the focus up, and nothing takes it back.
  await page.locator(".welcome").click({ position: { x: 5, y: 5 } });
  expect(await page.evaluate(() => document.activeElement?.tagName)).toMatch(/BODY|MAIN/u);
});

/** From now on, what a screen reader would say, each text once; ask for it by calling the result. */
async function spoken(page: Page): Promise<() => Promise<string[]>> {
  await page.evaluate(() => {
    const said: string[] = [];
    const before = new WeakMap<Element, string>();
    Object.assign(window, { said });
    const read = () => {
      for (const region of document.querySelectorAll("main :is([aria-live='polite'], [role='status'], [role='alert'])")) {
        const text = (region as HTMLElement).innerText.trim();
        if (text !== "" && text !== before.get(region)) said.push(text);
        before.set(region, text);
      }
    };
    new MutationObserver(read).observe(document.body, { subtree: true, childList: true, characterData: true });
  });
  return () => page.evaluate(() => (window as unknown as { said: string[] }).said);
}

test("a streamed answer is said once, whole, and not word by word", async ({ page }) => {
  await beginWith(page, LONG);
  await page.goto("/");
  const said = await spoken(page);
  await ask(page, "Tell me everything.");
  await expect.poll(async () => (await answers(page).last().locator(".markdown").innerText()).length).toBeGreaterThan(300);
  await page.getByRole("button", { name: "Stop the answer" }).click();
  await answered(page, 1);
  await expect(box(page)).toBeFocused();
  expect(await said()).toEqual(["The answer is being written", expect.stringMatching(/^Answer: /u)]);
});

test("answers side by side are said once, when all have ended, and not again when a column comes or goes", async ({ page }) => {
  await beginWith(page, LONG);
  await page.goto("/compare");
  const said = await spoken(page);
  await ask(page, "Tell me everything.");
  for (const place of [1, 2]) {
    const text = page.getByRole("region", { name: `Model ${place}` }).locator(".column-body");
    await expect.poll(async () => (await text.innerText()).length).toBeGreaterThan(200);
  }
  expect(await said()).toEqual(["The answers are being written"]);
  await page.getByRole("button", { name: "Stop all" }).click();
  await expect(page.getByRole("button", { name: "Ask all" })).toBeVisible();
  const both = expect.stringMatching(/^Answer of model 1, .+: .+Answer of model 2, .+: ./su);
  expect(await said()).toEqual(["The answers are being written", both]);
  await page.getByRole("button", { name: "Add a model" }).click();
  await expect(page.locator(".column")).toHaveCount(3);
  await page.getByRole("button", { name: /^Remove column/u }).first().click();
  await expect(page.locator(".column")).toHaveCount(2);
  expect(await said()).toHaveLength(2);
});

test("a model that fails beside another is said, and the other's answer too", async ({ page, problems }) => {
  await beginWith(page, { max_tokens: 12, temperature: 0 });
  await page.goto("/compare");
  const said = await spoken(page);
  let first = true;
  await page.route("**/v1/chat/completions", (route) => {
    const fails = first;
    first = false;
    return fails ? route.fulfill({ status: 503, json: { error: { message: "Not now", type: "server_error", code: null, param: null } } }) : route.continue();
  });
  await ask(page, "What is a bond?");
  await expect(page.locator(".column .failure")).toBeVisible();
  await expect(page.getByRole("button", { name: "Ask all" })).toBeVisible();
  const heard = (await said()).join(" | ");
  expect(heard).toContain("The server had an internal error");
  expect(heard.match(/Answer of model/gu)).toHaveLength(1);
  problems.length = 0; // the failure that was asked for
});

test("the keyboard reaches and works everything in a conversation", async ({ page }) => {
  await beginWith(page, { max_tokens: 12, temperature: 0, probabilities: true });
  await page.goto("/");
  await ask(page, "What is a bond?");
  await answered(page, 1);
  const expected = await page.evaluate(() => [...document.querySelectorAll("main :is(a[href], button:not(:disabled), textarea, input)")].filter((one) => one.checkVisibility()).length);
  await page.getByRole("link", { name: "Skip to the conversation" }).focus();
  await page.keyboard.press("Enter");
  const reached = new Set<string>();
  for (let step = 0; step < expected + 4; step++) {
    await page.keyboard.press("Tab");
    const now = await page.evaluate(() => {
      const element = document.activeElement;
      if (!element?.closest("main")) return null;
      const style = getComputedStyle(element.matches("textarea") ? (element.closest("form") ?? element) : element);
      const shown = style.outlineStyle !== "none" || style.boxShadow !== "none";
      return { name: `${element.tagName} ${element.getAttribute("aria-label") ?? element.textContent ?? ""} ${element.getBoundingClientRect().top}`, shown };
    });
    if (now === null) break;
    expect(now, "the focus can be seen").toMatchObject({ shown: true });
    reached.add(now.name);
  }
  expect(reached.size).toBeGreaterThanOrEqual(expected);
});

test("at 320 pixels, which is 400 % of a common screen, nothing is cut off, and every target is large enough", async ({ page }) => {
  await page.setViewportSize({ width: 320, height: 640 });
  await beginWith(page, { max_tokens: 12, temperature: 0 });
  await page.goto("/");
  const content = `${"averylongwordwithoutanend".repeat(8)}\n\n| a | b | c | d | e | f |\n| - | - | - | - | - | - |\n| ${"wide cell ".repeat(5)} | 2 | 3 | 4 | 5 | 6 |\n\n\`\`\`\n${"code ".repeat(40)}\n\`\`\``;
  const message = { id: "a", conversation: "c", parent: null, role: "assistant", content, created: 1 };
  await page.getByRole("button", { name: "Open the sidebar" }).click();
  await importFile(page, { format: "tallyformer-conversations", version: 1, conversations: [{ id: "c", title: "Wide", created: 0, updated: 0, leaf: "a" }], messages: [message] });
  await page.getByRole("link", { name: "Wide" }).click();
  await expect(page.locator(".markdown table")).toBeVisible();
  const check = async (state: string) => {
    expect(await page.evaluate(() => document.documentElement.scrollWidth), state).toBeLessThanOrEqual(320);
    // WCAG 2.2, 2.5.8: 24 by 24, but for links in a text.
    const small = await page.evaluate(() =>
      [...document.querySelectorAll("button, input, textarea, [role='option'], [role^='menuitem']")]
        .filter((one) => one.checkVisibility() && !one.closest(".tokens") && !one.closest("label"))
        .map((one) => ({ name: one.getAttribute("aria-label") ?? one.textContent, box: one.getBoundingClientRect() }))
        .filter(({ box: { width, height } }) => width > 1 && (width < 24 || height < 24))
        .map(({ name }) => name),
    );
    expect(small, state).toEqual([]);
  };
  await check("conversation");
  await openSettings(page);
  await check("settings");
  await closeDialog(page);
  for (const path of ["/", "/compare", "/info"]) {
    await page.goto(path);
    await expect(page.getByRole("heading").first()).toBeVisible();
    await check(path);
  }
});
