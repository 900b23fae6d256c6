import { answered, answers, ask, beginWith, importFile, LONG } from "./actions";
import { expect, test } from "./server";

const COUNT = 2000;

test("of 2,000 messages only those in sight are in the page, from the first to the last", async ({ page }) => {
  await page.goto("/");
  const messages = Array.from({ length: COUNT }, (_, at) => ({
    id: `m${at}`,
    conversation: "c",
    parent: at === 0 ? null : `m${at - 1}`,
    role: at % 2 === 0 ? "user" : "assistant",
    content: `Message **${at}**. ${"Some words. ".repeat(at % 17)}`,
    created: at,
  }));
  const conversations = [{ id: "c", title: "Long", created: 0, updated: 0, leaf: `m${COUNT - 1}` }];
  await importFile(page, { format: "tallyformer-conversations", version: 1, conversations, messages });
  await page.getByRole("link", { name: "Long" }).click();
  await expect(page.locator(`[aria-posinset="${COUNT}"]`)).toBeInViewport();
  expect(await page.locator(".message").count()).toBeLessThan(60);
  await page.locator(".scroller").evaluate((box) => (box.scrollTop = 0));
  await expect(page.locator('[aria-posinset="1"]')).toBeInViewport();
  expect(await page.locator(".message").count()).toBeLessThan(60);
  await page.getByRole("button", { name: "Jump to the newest message" }).click();
  await expect(page.locator(`[aria-posinset="${COUNT}"]`)).toBeInViewport();
});

test("while an answer streams it is drawn at most once a frame, and no other message is", async ({ page }) => {
  await beginWith(page, LONG);
  await page.goto("/");
  await ask(page, "First");
  await page.getByRole("button", { name: "Stop the answer" }).click();
  await answered(page, 1);
  await page.evaluate(() => {
    const counts = { others: 0, drawn: 0, frames: 0, running: true };
    Object.assign(window, { counts });
    const others = new MutationObserver((records) => (counts.others += records.length));
    for (const done of document.querySelectorAll(".message")) others.observe(done, { subtree: true, childList: true, characterData: true });
    const streaming = new MutationObserver((records) => {
      if (records.some((record) => record.target.parentElement?.closest('.message[aria-busy="true"] .markdown'))) counts.drawn++;
    });
    streaming.observe(document.body, { subtree: true, childList: true, characterData: true });
    const frame = () => {
      counts.frames++;
      if (counts.running) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  });
  await ask(page, "Second");
  await expect.poll(async () => (await answers(page).last().locator(".markdown").innerText()).length).toBeGreaterThan(1500);
  const counts = await page.evaluate(() => {
    const seen = (window as unknown as { counts: { others: number; drawn: number; frames: number; running: boolean } }).counts;
    seen.running = false;
    return seen;
  });
  await page.getByRole("button", { name: "Stop the answer" }).click();
  expect(counts.drawn).toBeGreaterThan(2);
  expect(counts.drawn).toBeLessThanOrEqual(counts.frames + 1);
  // The answer before loses its Continue button, as it is not the last one any more.
  expect(counts.others).toBeLessThanOrEqual(4);
});

test("scrolling up releases the end, and going back follows it again", async ({ page }) => {
  await beginWith(page, LONG);
  await page.goto("/");
  await ask(page, "Tell me everything.");
  const scroller = page.locator(".scroller");
  await expect.poll(() => scroller.evaluate((box) => box.scrollTop)).toBeGreaterThan(400);
  await scroller.hover();
  // In small steps: new text comes between them.
  for (let step = 0; step < 10; step++) await page.mouse.wheel(0, -30);
  await expect(page.getByRole("button", { name: "Jump to the newest message" })).toBeVisible();
  const top = await scroller.evaluate((box) => box.scrollTop);
  const height = await scroller.evaluate((box) => box.scrollHeight);
  await expect.poll(() => scroller.evaluate((box) => box.scrollHeight)).toBeGreaterThan(height + 50);
  // Never back to the end; of the wheel's steps the last may come late.
  expect(await scroller.evaluate((box) => box.scrollTop)).toBeLessThanOrEqual(top);
  await page.getByRole("button", { name: "Jump to the newest message" }).click();
  await expect.poll(() => scroller.evaluate((box) => box.scrollHeight - box.scrollTop - box.clientHeight)).toBeLessThan(64);
  await page.getByRole("button", { name: "Stop the answer" }).click();
});

test("text from right to left is shown so, beside text from left to right", async ({ page }) => {
  await beginWith(page);
  await page.goto("/");
  await ask(page, "ما هو التضخم؟");
  await answered(page, 1);
  const direction = (selector: string) => page.locator(selector).first().evaluate((element) => getComputedStyle(element).direction);
  expect(await direction(".bubble")).toBe("rtl");
  expect(await direction(".entry .nav-link")).toBe("rtl");
  expect(await direction(".message-name")).toBe("ltr");
});

test.describe("on a phone", () => {
  test.use({ viewport: { width: 390, height: 800 }, hasTouch: true, isMobile: true });

  test("Enter is a new line, the button sends, and nothing is wider than the screen", async ({ page }) => {
    await beginWith(page);
    await page.goto("/");
    const box = page.getByLabel("Your message");
    await box.tap();
    await page.keyboard.type("One");
    await page.keyboard.press("Enter");
    await page.keyboard.type("Two");
    await expect(box).toHaveValue("One\nTwo");
    await page.getByRole("button", { name: "Send" }).tap();
    await answered(page, 1);
    for (const path of ["/", "/compare", "/info"]) {
      await page.goto(path);
      expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(390);
    }
  });
});
