import { answered, answers, ask, beginWith, box, closeDialog, LONG, openSettings } from "./actions";
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
  await page.getByRole("button", { name: "Stop the answer" }).click();
  await answered(page, 1);
  await expect.poll(() => server.running()).toBe(0);
  await expect(answers(page).last()).toContainText("Stopped");
});

test("an answer that ended early is continued where it ended", async ({ page }) => {
  await beginWith(page, { max_tokens: 6, temperature: 0 });
  await page.goto("/");
  await ask(page, "What is inflation?");
  await answered(page, 1);
  await expect(answers(page).last()).toContainText("Longest length reached");
  const text = await answers(page).last().locator(".markdown").innerText();
  await page.getByRole("button", { name: "Continue" }).click();
  await expect.poll(async () => (await answers(page).last().locator(".markdown").innerText()).length).toBeGreaterThan(text.length);
  await answered(page, 1);
  expect((await answers(page).last().locator(".markdown").innerText()).startsWith(text)).toBe(true);
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
  await expect(page.getByText("Write a whole number.")).toBeVisible();
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
