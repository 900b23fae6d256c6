import { answered, answers, ask, beginWith, box, closeDialog, importFile, LONG, openSettings } from "./actions";
import { expectAccessibleInBoth } from "./axe";
import { expect, test } from "./server";

test("a question is answered, with its metrics, and is there after a reload", async ({ page }) => {
  await beginWith(page);
  await page.goto("/");
  await expect(page.getByText("parameters")).toBeVisible();
  await page.getByRole("button", { name: "What is inflation?" }).click();
  await answered(page, 1);
  await expect(answers(page).last()).toContainText("12 tokens");
  await expect(answers(page).last()).toContainText("tokens/s");
  await expect(answers(page).last()).toContainText("first after");
  const text = await answers(page).last().locator(".markdown").innerText();
  await page.reload();
  await expect(answers(page).last().locator(".markdown")).toHaveText(text, { useInnerText: true });
  await expect(page.getByRole("link", { name: "What is inflation?" })).toBeVisible();
});

test("Stop frees the server's place, and the answer can be continued", async ({ page, server }) => {
  await beginWith(page, LONG);
  await page.goto("/");
  await ask(page, "Tell me everything.");
  await expect(answers(page).last().locator(".markdown")).not.toBeEmpty();
  expect(await server.running()).toBe(1);
  await expectAccessibleInBoth(page, "streaming");
  await page.getByRole("button", { name: "Stop the answer" }).click();
  await answered(page, 1);
  await expect.poll(() => server.running()).toBe(0);
  await expect(answers(page).last()).toContainText("Stopped");
  await expectAccessibleInBoth(page, "stopped");
});

test("an answer that ended early is continued where it ended", async ({ page }) => {
  await beginWith(page, { max_tokens: 6, temperature: 0 });
  await page.goto("/");
  await ask(page, "What is inflation?");
  await answered(page, 1);
  await expect(answers(page).last()).toContainText("Maximum length reached");
  const text = await answers(page).last().locator(".markdown").innerText();
  await page.getByRole("button", { name: "Continue" }).click();
  await expect.poll(async () => (await answers(page).last().locator(".markdown").innerText()).length).toBeGreaterThan(text.length);
  await answered(page, 1);
  expect((await answers(page).last().locator(".markdown").innerText()).startsWith(text)).toBe(true);
});

test("an answer that goes on keeps the colours of all of its tokens", async ({ page }) => {
  await beginWith(page, { max_tokens: 6, temperature: 0, probabilities: true });
  await page.goto("/");
  await ask(page, "What is inflation?");
  await answered(page, 1);
  const shown = page.getByRole("option");
  await page.getByRole("button", { name: "Show how sure the model was" }).click();
  await expect(shown).toHaveCount(6);
  await page.getByRole("button", { name: "Continue" }).click();
  await expect(shown).toHaveCount(12);
  await page.reload();
  await page.getByRole("button", { name: "Show how sure the model was" }).click();
  await expect(shown).toHaveCount(12);
});

test("edits and new answers are branches that one can go back to", async ({ page }) => {
  await beginWith(page);
  await page.goto("/");
  await ask(page, "First wording");
  await answered(page, 1);
  await page.locator(".message-user").hover();
  await page.getByRole("button", { name: "Edit" }).click();
  await page.getByLabel("Edit your message").fill("Second wording");
  await page.getByRole("button", { name: "Send as a new branch" }).click();
  await expect(page.locator(".bubble")).toHaveText("Second wording");
  await answered(page, 1);
  await page.getByRole("button", { name: "Answer again" }).click();
  await expect(answers(page).locator(".branches")).toHaveText("2 of 2");
  await answered(page, 1);
  await answers(page).getByRole("button", { name: "Previous version" }).click();
  await expect(answers(page).locator(".branches")).toHaveText("1 of 2");
  await page.locator(".message-user").getByRole("button", { name: "Previous version" }).click();
  await expect(page.locator(".bubble")).toHaveText("First wording");
  await page.reload();
  await expect(page.locator(".bubble")).toHaveText("First wording");
});

test("an answer is edited as another version of it, which the model goes on from", async ({ page }) => {
  await beginWith(page);
  await page.goto("/");
  await ask(page, "What is a bond?");
  await answered(page, 1);
  const made = await answers(page).locator(".markdown").innerText();
  await answers(page).getByRole("button", { name: "More actions" }).click();
  await page.getByRole("menuitem", { name: "Edit" }).click();
  const editor = page.getByLabel("Edit the answer");
  await expect(editor).toBeFocused();
  // It is as tall as its text.
  expect(await editor.evaluate((area) => area.scrollHeight - area.clientHeight)).toBe(0);
  await expectAccessibleInBoth(page, "an answer that is edited");
  await editor.fill("A bond is");
  await editor.press("Enter");
  await editor.pressSequentially("a loan");
  await page.getByRole("button", { name: "Keep as a new version" }).click();
  await expect(answers(page).locator(".markdown")).toHaveText("A bond is a loan");
  await expect(answers(page).locator(".message-end")).toHaveText("Edited");
  await expect(answers(page).locator(".branches")).toHaveText("2 of 2");
  const sent = page.waitForRequest((request) => request.url().endsWith("/v1/chat/completions"));
  await page.getByRole("button", { name: "Continue" }).click();
  expect((await sent).postDataJSON()).toMatchObject({ messages: [{ role: "user", content: "What is a bond?" }, { role: "assistant", content: "A bond is\na loan" }] });
  await expect(answers(page).last()).toContainText("12 tokens");
  await expect(answers(page).locator(".markdown")).toContainText(/^A bond is\s+a loan.+/u);
  await answers(page).getByRole("button", { name: "Previous version" }).click();
  await expect(answers(page).locator(".markdown")).toHaveText(made, { useInnerText: true });
});

test("Enter sends; Shift+Enter does not, nor does Enter while a word is composed", async ({ page }) => {
  await beginWith(page);
  await page.goto("/");
  await box(page).fill("One");
  await box(page).press("Shift+Enter");
  await box(page).pressSequentially("Two");
  await expect(box(page)).toHaveValue("One\nTwo");
  await box(page).dispatchEvent("keydown", { key: "Enter", isComposing: true });
  await box(page).dispatchEvent("keydown", { key: "Enter", keyCode: 229 });
  await expect(box(page)).toHaveValue("One\nTwo");
  await box(page).press("Enter");
  await answered(page, 1);
  await expect(page.locator(".bubble")).toHaveText("One\nTwo");
});

test("nothing is sent by opening an address", async ({ page }) => {
  const sent: string[] = [];
  page.on("request", (request) => request.method() === "POST" && sent.push(request.url()));
  for (const path of ["/?q=hello", "/?prompt=hello", "/#hello", "/c/unknown?q=hello"]) await page.goto(path);
  await expect(page.getByText("This conversation is not here")).toBeVisible();
  expect(sent).toEqual([]);
});

test("settings are checked where they are typed, and belong to their conversation", async ({ page }) => {
  await page.goto("/");
  await openSettings(page);
  await page.getByLabel("Top-p", { exact: true }).fill("2");
  await expect(page.getByText("Must be above 0, at most 1.")).toBeVisible();
  await page.getByLabel("Top-p", { exact: true }).fill("0.5");
  await page.getByLabel("Top-k").fill("1.5");
  await expect(page.getByText("Enter a whole number.")).toBeVisible();
  await page.getByLabel("Top-k").fill("");
  await page.getByLabel("Longest answer").fill("5");
  await closeDialog(page);
  const sent = page.waitForRequest((request) => request.url().endsWith("/v1/chat/completions"));
  await ask(page, "Hello");
  expect((await sent).postDataJSON()).toMatchObject({ top_p: 0.5, max_tokens: 5 });
  await answered(page, 1);
  await page.reload();
  await openSettings(page);
  await expect(page.getByLabel("Top-p", { exact: true })).toHaveValue("0.5");
  await closeDialog(page);
  await page.getByRole("link", { name: "New chat" }).click();
  await openSettings(page);
  await expect(page.getByLabel("Top-p", { exact: true })).toHaveValue("");
});

test("a draft's tokens are counted, and what the model did not see is marked", async ({ page }) => {
  await beginWith(page);
  await page.goto("/");
  await box(page).fill("What is a bond?");
  await expect(page.locator(".context-text")).not.toHaveText(/^0 of|once the model/);
  for (let turn = 1; turn <= 3; turn++) {
    await ask(page, `${"A long question about bonds and shares. ".repeat(8)} ${turn}`);
    await answered(page, turn);
  }
  await expect(page.getByText(/The model did not see what is above/)).toBeVisible();
  await page.locator("button.context").click();
  await expect(page.getByText("12 or more")).toBeVisible();
});

test("every page with answers says that they are no financial advice", async ({ page }) => {
  await beginWith(page);
  for (const path of ["/", "/compare"]) {
    await page.goto(path);
    await expect(page.getByText("They are not financial advice.")).toBeInViewport();
  }
  await page.goto("/");
  await ask(page, "What is a bond?");
  await answered(page, 1);
  await expect(page.getByText("They are not financial advice.")).toBeInViewport();
});

test("Copy gives the answer as it was written to the clipboard of a secure host", async ({ page, context }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.goto("/");
  const content = "A **bond** pays $2\\%$:\n\n```py\nx = 1\n```";
  const message = { id: "a", conversation: "c", parent: null, role: "assistant", content, created: 1 };
  await importFile(page, { format: "tallyformer-conversations", version: 1, conversations: [{ id: "c", title: "Copied", created: 0, updated: 0, leaf: "a" }], messages: [message] });
  await page.getByRole("link", { name: "Copied" }).click();
  const clipboard = () => page.evaluate(() => navigator.clipboard.readText());
  await answers(page).getByRole("button", { name: "Copy", exact: true }).click();
  await expect.poll(clipboard).toBe(content);
  await page.getByRole("button", { name: "Copy code" }).click();
  await expect.poll(clipboard).toBe("x = 1");
});

const RICH = [
  "# Value",
  "The *present* value is $\\frac{C}{1+r}$, and",
  "$$\n\\sum_{t=1}^{n} x^t\n$$",
  "| Paper | Risk |\n| --- | ---: |\n| Bond | 2 |\n| Share | 15 |",
  "```python\ndef f(x):\n    return x\n```",
  "1. one\n2. two\n   - inner",
  "It costs $5 or $6.",
].join("\n\n");

test("markdown, tables, code and mathematics become what they say", async ({ page }) => {
  await page.goto("/");
  const message = { id: "a", conversation: "c", parent: null, role: "assistant", content: RICH, created: 1 };
  // With money in it, dollars alone are no mathematics.
  const priced = { id: "b", conversation: "c", parent: "a", role: "assistant", content: "It costs $5 or $6, so $$x^2$$.", created: 2 };
  await importFile(page, { format: "tallyformer-conversations", version: 1, conversations: [{ id: "c", title: "Rich", created: 0, updated: 0, leaf: "b" }], messages: [{ ...message, content: RICH.replace("It costs $5 or $6.", "") }, priced] });
  await page.getByRole("link", { name: "Rich" }).click();
  const text = answers(page).first().locator(".markdown");
  await expect(text.getByRole("heading", { name: "Value" })).toBeVisible();
  await expect(text.locator("em")).toHaveText("present");
  await expect(text.locator("math mfrac")).toHaveCount(1);
  await expect(text.locator('math[display="block"] munderover, math[display="block"] msubsup')).toHaveCount(1);
  await expect(text.locator('math[display="block"] msup')).toHaveCount(1);
  // It is drawn, and not only there.
  expect((await text.locator("math mfrac").boundingBox())?.height).toBeGreaterThan(15);
  await expect(text.locator("th")).toHaveText(["Paper", "Risk"]);
  await expect(text.locator("tbody tr").last().locator("td")).toHaveText(["Share", "15"]);
  await expect(text.locator("pre code")).toHaveText("def f(x):\n    return x\n");
  await expect(text.locator("ol > li")).toHaveCount(2);
  await expect(text.locator("ol > li ul > li")).toHaveText("inner");
  await expect(answers(page).last().locator("math")).toHaveCount(1);
  await expect(answers(page).last().locator(".markdown")).toContainText("It costs $5 or $6");
});

test.describe("how sure the model was", () => {
  test.use({ hasTouch: true });

  test("is shown with the alternatives of each token on hover, by keys and by touch", async ({ page }) => {
    await page.goto("/");
    const token = (text: string, other: string, logprob: number) => ({ token: text, logprob, top_logprobs: [{ token: text, logprob }, { token: other, logprob: -3 }] });
    const tokens = [token("A", " The", -0.01), token(" loan", " debt", -0.7), token(" pays", " is", -2.5)];
    const message = { id: "a", conversation: "c", parent: null, role: "assistant", content: "A loan pays", created: 1, tokens };
    await importFile(page, { format: "tallyformer-conversations", version: 1, conversations: [{ id: "c", title: "Sure", created: 0, updated: 0, leaf: "a" }], messages: [message] });
    await page.getByRole("link", { name: "Sure" }).click();
    await page.getByRole("button", { name: "Show how sure the model was" }).click();
    const shown = page.getByRole("option");
    await expect(shown).toHaveText(["A", " loan", " pays"], { useInnerText: false });
    expect(new Set(await shown.evaluateAll((all) => all.map((one) => getComputedStyle(one).backgroundColor))).size).toBe(3);
    // What they stand for is written below.
    await expect(page.locator(".levels span").first()).toHaveText("90% or more");
    const others = page.locator(".alternatives li");
    await shown.nth(1).hover();
    await expect(others).toHaveText([/·loan.*49\.7%/u, /·debt.*5%/u]);
    await page.getByRole("listbox").focus();
    await page.keyboard.press("End");
    await expect(others).toHaveText([/·pays.*8\.2%/u, /·is/u]);
    await expect(shown.nth(2)).toHaveAttribute("aria-selected", "true");
    await page.keyboard.press("ArrowLeft");
    await expect(others.first()).toHaveText(/·loan/u);
    await shown.nth(0).tap();
    await expect(others).toHaveText([/A.*99%/u, /·The/u]);
    await page.getByRole("button", { name: "Show as text" }).click();
    await expect(answers(page).locator(".markdown")).toHaveText("A loan pays");
  });
});
