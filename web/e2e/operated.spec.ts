/** Servers with keys, limits and feedback. */
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createHash } from "node:crypto";
import type { Page } from "@playwright/test";
import { answered, answers, ask, beginWith } from "./actions";
import { expectAccessibleInBoth } from "./axe";
import { expect, startServer, test } from "./server";

const folder = () => mkdtempSync(join(tmpdir(), "page-"));

async function typeKey(page: Page, key: string): Promise<void> {
  await page.getByRole("button", { name: "Menu" }).click();
  await page.getByRole("menuitem", { name: "API key" }).click();
  await page.getByLabel("Key", { exact: true }).fill(key);
  await page.getByRole("button", { name: "Save", exact: true }).click();
}

// The browser reports refused requests on its console.
test.use({ problems: async ({}, use) => use([]) });

test("a server with keys and limits says what to do, and its ratings are kept", async ({ page }) => {
  test.setTimeout(120_000);
  const place = folder();
  const keys = join(place, "keys");
  const database = join(place, "feedback.sqlite");
  writeFileSync(keys, `me sha256:${createHash("sha256").update("tf-mine").digest("hex")}\n`);
  const own = await startServer("--api-key-file", keys, "--feedback", `sqlite:///${database}`, "--requests-per-minute", "4");
  try {
    await beginWith(page);
    await page.goto(`${own.url}/info`);
    await expect(page.getByText("This server asks for a key.")).toBeVisible();
    await page.goto(own.url);
    await expect(page.getByText("This server asks for a key.")).toBeVisible();
    await expectAccessibleInBoth(page, "asks for a key");
    await page.getByRole("button", { name: "Enter the key" }).click();
    await expectAccessibleInBoth(page, "dialog of the key");
    await page.getByLabel("Key", { exact: true }).fill("tf-mine");
    await page.getByRole("button", { name: "Save", exact: true }).click();
    await expect(page.getByText("parameters")).toBeVisible();
    await expect(page.getByText("This server asks for a key.")).toHaveCount(0);
    await ask(page, "What is a bond?");
    await answered(page, 1);
    await typeKey(page, "tf-other");
    await ask(page, "With another key");
    await expect(answers(page).last()).toContainText("The server does not know this key.");
    await expectAccessibleInBoth(page, "a wrong key");
    await answers(page).getByRole("button", { name: "Enter the key" }).click();
    await page.getByLabel("Key", { exact: true }).fill("tf-mine");
    await page.getByRole("button", { name: "Save", exact: true }).click();
    await page.getByRole("button", { name: "Try again" }).click();
    await answered(page, 2);
    await expect(answers(page).last()).toContainText("12 tokens");
    const [rated] = await Promise.all([page.waitForResponse("**/v1/feedback"), page.getByRole("button", { name: "Good answer" }).first().click()]);
    expect([rated.status(), (rated.request().postDataJSON() as { rating: string }).rating]).toEqual([200, "up"]);
    await expect(page.getByRole("button", { name: "Good answer" }).first()).toHaveAttribute("aria-pressed", "true");
    await page.getByRole("button", { name: "Bad answer" }).last().click();
    await expectAccessibleInBoth(page, "dialog of a rating");
    await page.getByLabel("A better answer").fill("A loan that can be traded.");
    await page.getByRole("button", { name: "Send the correction" }).click();
    await expect(page.getByText("The rating is saved.").first()).toBeVisible();
    await expect(page.getByRole("button", { name: "Bad answer" }).last()).toHaveAttribute("aria-pressed", "true");
    const files = readdirSync(place).map((name) => readFileSync(join(place, name)));
    expect(files.some((content) => content.includes("A loan that can be traded."))).toBe(true);
    // Some of the minute's requests come back while it passes.
    for (let turn = 3; turn <= 12; turn++) {
      await ask(page, `Again ${turn}`);
      await answered(page, turn);
      if (await answers(page).last().getByRole("alert").count()) break;
    }
    await expect(answers(page).last()).toContainText(/The server is busy\. Try again in \d+ s\./);
    await page.reload();
    await expect(page.getByRole("region", { name: "Your correction" })).toContainText("A loan that can be traded.");
    await expect(page.getByRole("button", { name: "Bad answer", pressed: true })).toBeAttached();
    await expectAccessibleInBoth(page, "a corrected answer");
  } finally {
    await own.kill("SIGKILL");
  }
});
