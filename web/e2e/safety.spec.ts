import type { Page } from "@playwright/test";
import { answered, ask, beginWith, importFile, LONG } from "./actions";
import { expect, test } from "./server";

/** Texts that ran, loaded or followed something in other pages. */
const CORPUS = [
  `<script>window.hacked=1</script>`,
  `<img src=x onerror="window.hacked=1">`,
  `<svg onload="window.hacked=1"></svg>`,
  `<iframe srcdoc="<script>parent.hacked=1</script>"></iframe>`,
  `<math><mtext></mtext><style><img src=x onerror="window.hacked=1"></style></math>`,
  `![x](http://attacker.example/pixel.png)`,
  `![x](javascript:window.hacked=1)`,
  `[click](javascript:window.hacked=1)`,
  `[click](JaVaScRiPt:window.hacked=1)`,
  `[click](data:text/html,<script>window.hacked=1</script>)`,
  `[click](vbscript:window.hacked=1)`,
  `[click](/v1/models "onmouseover=window.hacked=1")`,
  `<a href="javascript:window.hacked=1">x</a>`,
  `<javascript:window.hacked=1>`,
  "```html\n<script>window.hacked=1</script>\n```",
  `$\\href{javascript:window.hacked=1}{x}$ and $\\includegraphics{http://attacker.example/x.png}$`,
  `$\\htmlStyle{position:fixed;inset:0}{x}$`,
  `[ref]: javascript:window.hacked=1\n\n[ref]`,
  `<form action="http://attacker.example"><button>Send</button></form>`,
  `<link rel="stylesheet" href="http://attacker.example/x.css">`,
  `<meta http-equiv="refresh" content="0;url=http://attacker.example">`,
  `http://attacker.example/auto-link`,
  `| a | b |\n| - | - |\n| <img src=x onerror="window.hacked=1"> | [x](javascript:1) |`,
];

async function expectHarmless(page: Page): Promise<void> {
  expect(await page.evaluate(() => "hacked" in window)).toBe(false);
  expect(await page.locator("main :is(script, iframe, object, embed, form[action], link, meta, style)").count()).toBe(0);
  expect(await page.locator("main img:not([src='/favicon.svg'])").count()).toBe(0);
  const links = await page.locator("main a[href]").evaluateAll((all) => all.map((one) => [(one as HTMLAnchorElement).href, one.getAttribute("rel"), one.className]));
  for (const [address, rel, look] of links) {
    expect(address).toMatch(/^(https?|mailto):/u);
    if (!look) expect(rel).toBe("noopener noreferrer nofollow");
  }
}

test("no text of an answer, title, model or setting in an imported file does anything", async ({ page }) => {
  await page.goto("/");
  const messages = CORPUS.flatMap((content, at) => [
    { id: `u${at}`, conversation: "c", parent: at === 0 ? null : `a${at - 1}`, role: "user", content, created: 2 * at },
    { id: `a${at}`, conversation: "c", parent: `u${at}`, role: "assistant", content, created: 2 * at + 1, model: content, finish: content },
  ]);
  const settings = { system: CORPUS[1] };
  const leaf = `a${CORPUS.length - 1}`;
  const conversations = [{ id: "c", title: CORPUS.join(" "), created: 0, updated: 0, model: CORPUS[1], settings, leaf }];
  await importFile(page, { format: "tallyformer-conversations", version: 1, conversations, messages });
  await page.locator(".entry .nav-link").first().click();
  const seen = new Set<string>();
  const scroller = page.locator(".scroller");
  await expect(page.locator(".message").first()).toBeVisible();
  await scroller.evaluate((box) => (box.scrollTop = 0));
  const shown = async () => {
    for (const at of await page.locator(".message").evaluateAll((all) => all.map((one) => one.getAttribute("aria-posinset") ?? ""))) seen.add(at);
    await expectHarmless(page);
    // A step down, and from the end back to the beginning: what was not drawn in time is seen the next time.
    await scroller.evaluate((box) => (box.scrollTop = box.scrollTop + box.clientHeight >= box.scrollHeight - 1 ? 0 : box.scrollTop + 400));
    return seen.size;
  };
  await expect.poll(shown, { intervals: [80] }).toBe(messages.length);
});

/** As much as the tiny model reads: some of each kind. */
const GROWING = [0, 1, 7].map((at) => CORPUS[at]).join("\n\n");

test("no text does anything while it grows", async ({ page }) => {
  await beginWith(page, LONG);
  await page.goto("/");
  const message = { id: "a", conversation: "c", parent: "q", role: "assistant", content: GROWING, created: 2, status: "interrupted" };
  const question = { id: "q", conversation: "c", parent: null, role: "user", content: "Go on", created: 1 };
  const conversations = [{ id: "c", title: "Grows", created: 0, updated: 0, settings: LONG, leaf: "a" }];
  await importFile(page, { format: "tallyformer-conversations", version: 1, conversations, messages: [question, message] });
  await page.getByRole("link", { name: "Grows" }).click();
  await page.getByRole("button", { name: "Continue" }).click();
  const text = page.locator(".message-assistant .markdown");
  const length = (await text.innerText()).length;
  await expect.poll(async () => (await text.innerText()).length).toBeGreaterThan(length + 100);
  await expect(page.locator('.message-assistant[aria-busy="true"]')).toBeVisible();
  await expectHarmless(page);
  await page.getByRole("button", { name: "Stop the answer" }).click();
  await answered(page, 1);
  await expectHarmless(page);
});

test("no prompt and no model's name does anything", async ({ page }) => {
  await beginWith(page);
  await page.goto("/");
  await page.getByRole("combobox", { name: "Model" }).click();
  await page.getByRole("option").filter({ hasText: "<img" }).click();
  await ask(page, CORPUS.slice(0, 4).join("\n"));
  await answered(page, 1);
  await expectHarmless(page);
  await page.goto("/info");
  await expect(page.getByRole("heading", { name: "<img" })).toBeVisible();
  await expectHarmless(page);
});

test("only the typed key is kept as a secret, and Forget removes it", async ({ page }) => {
  await page.goto("/");
  await page.getByRole("button", { name: "Menu" }).click();
  await page.getByRole("menuitem", { name: "API key" }).click();
  await page.getByLabel("Key", { exact: true }).fill("tf-secret");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  expect(await page.evaluate(() => JSON.stringify({ ...localStorage }))).toContain("tf-secret");
  await page.getByRole("button", { name: "Menu" }).click();
  await page.getByRole("menuitem", { name: "API key" }).click();
  await page.getByRole("button", { name: "Forget" }).click();
  expect(await page.evaluate(() => JSON.stringify({ ...localStorage }) + document.cookie)).not.toContain("tf-secret");
});
