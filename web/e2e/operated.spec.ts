/** Servers with keys, limits and feedback. */
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createHash } from "node:crypto";
import { answered, answers, ask, beginWith } from "./actions";
import { expect, startServer, test } from "./server";

const folder = () => mkdtempSync(join(tmpdir(), "page-"));

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
    await page.getByRole("button", { name: "Enter the key" }).click();
    await page.getByLabel("Key", { exact: true }).fill("tf-mine");
    await page.getByRole("button", { name: "Save", exact: true }).click();
    await expect(page.getByRole("heading", { name: "sft" })).toBeVisible();
    await page.getByRole("link", { name: "New chat" }).click();
    await ask(page, "What is a bond?");
    await answered(page, 1);
    await page.getByRole("button", { name: "Bad answer" }).click();
    await page.getByLabel("A better answer").fill("A loan that can be traded.");
    await page.getByRole("button", { name: "Send the correction" }).click();
    await expect(page.getByText("The rating is kept.").first()).toBeVisible();
    await expect(page.getByRole("button", { name: "Bad answer" })).toHaveAttribute("aria-pressed", "true");
    const files = readdirSync(place).map((name) => readFileSync(join(place, name)));
    expect(files.some((content) => content.includes("A loan that can be traded."))).toBe(true);
    for (let turn = 2; turn <= 5; turn++) {
      await ask(page, `Again ${turn}`);
      await answered(page, turn);
    }
    await expect(answers(page).last()).toContainText(/The server is busy\. Try again in \d+ s\./);
  } finally {
    await own.kill("SIGKILL");
  }
});
