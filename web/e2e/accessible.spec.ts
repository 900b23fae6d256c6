import AxeBuilder from "@axe-core/playwright";
import type { Page } from "@playwright/test";
import { answered, ask, beginWith, closeDialog, importFile, openSettings } from "./actions";
import { expect, test } from "./server";

const TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

async function expectAccessible(page: Page, state: string): Promise<void> {
  const axe = new AxeBuilder({ page })
    .withTags(TAGS)
    // They pass the focus on at once, to what is on the other side of an open menu.
    .exclude("[data-base-ui-focus-guard]");
  // A menu lies above the page, in no landmark; that is no criterion of WCAG.
  if (state === "menu") axe.disableRules(["region"]);
  const { violations } = await axe.analyze();
  expect(violations.map((one) => `${state}: ${one.id}: ${one.nodes.map((node) => node.html).join(" | ")}`)).toEqual([]);
}

const CONTENT = "# Head\n\nSee [this](https://example.org), `code` and $x^2$.\n\n- a\n- b\n\n> quote\n\n| a | b |\n| - | - |\n| 1 | 2 |\n\n```py\nx = 1\n```\n\n![p](https://example.org/p.png)";
const TOKENS = [{ token: "A", logprob: -0.1, top_logprobs: [{ token: "A", logprob: -0.1 }, { token: " B", logprob: -2 }] }];

for (const [scheme, width] of [["light", 1280], ["dark", 390]] as const) {
  test.describe(`${scheme}, ${width} wide`, () => {
    test.use({ colorScheme: scheme, viewport: { width, height: 800 }, contextOptions: { reducedMotion: "reduce" } });

    test("axe finds nothing on any page and state", async ({ page }) => {
      test.setTimeout(120_000);
      await beginWith(page, { max_tokens: 12, temperature: 0, probabilities: true });
      await page.goto("/");
      await expect(page.getByText("parameters")).toBeVisible();
      await expectAccessible(page, "welcome");
      await ask(page, "What is a bond?");
      await answered(page, 1);
      await expectAccessible(page, "answered");
      await page.getByRole("button", { name: "Show how sure the model was" }).click();
      await page.getByRole("listbox").focus();
      await expect(page.locator(".alternatives li")).toHaveCount(5);
      await expectAccessible(page, "probabilities");
      await openSettings(page);
      await page.getByLabel("Top-p", { exact: true }).fill("2");
      await expectAccessible(page, "settings");
      await closeDialog(page);
      await page.getByRole("button", { name: "How this answer was made" }).click();
      await expectAccessible(page, "details");
      await page.keyboard.press("Escape");
      await page.goto("/c/unknown");
      await expect(page.getByText("is not here")).toBeVisible();
      await expectAccessible(page, "missing");
      await page.goto("/compare");
      await ask(page, "What is a share?");
      await expect(page.locator(".column .metrics")).toHaveCount(2);
      await expectAccessible(page, "compare");
      await page.goto("/info");
      await expect(page.locator(".card").first()).toBeVisible();
      await expectAccessible(page, "models");
      if (width < 860) await page.getByRole("button", { name: "Open the sidebar" }).click();
      await page.getByRole("button", { name: "Menu" }).click();
      await expect(page.getByRole("menuitem", { name: "Import" })).toBeVisible();
      await expectAccessible(page, "menu");
      await page.keyboard.press("Escape");
      const message = { id: "a", conversation: "c", parent: null, role: "assistant", content: CONTENT, created: 1, tokens: TOKENS };
      await importFile(page, { format: "tallyformer-conversations", version: 1, conversations: [{ id: "c", title: "Rich", created: 0, updated: 0, leaf: "a" }], messages: [message] });
      await page.getByRole("link", { name: "Rich" }).click();
      await expect(page.locator(".markdown table")).toBeVisible();
      await expectAccessible(page, "rich");
    });
  });
}
