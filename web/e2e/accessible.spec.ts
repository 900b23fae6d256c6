import type { Page } from "@playwright/test";
import { answered, answers, ask, beginWith, box, closeDialog, importFile, openSettings } from "./actions";
import { expectAccessible, LOOKS } from "./axe";
import { expect, test } from "./server";

const CONTENT = "# Head\n\nSee [this](https://example.org), `code` and $x^2$.\n\n- a\n- b\n\n> quote\n\n| a | b |\n| - | - |\n| 1 | 2 |\n\n```py\nx = 1\n```\n\n![p](https://example.org/p.png)";
const TOKENS = [{ token: "A", logprob: -0.1, top_logprobs: [{ token: "A", logprob: -0.1 }, { token: " B", logprob: -2 }] }];

// Answers that cannot be had are reported on the console.
test.use({ problems: async ({}, use) => use([]) });

for (const [scheme, width, rules] of [["light", 1280, undefined], ["dark", 390, LOOKS]] as const) {
  const accessible = (page: Page, state: string) => expectAccessible(page, state, rules && [...rules]);
  test.describe(`${scheme}, ${width} wide`, () => {
    test.use({ colorScheme: scheme, viewport: { width, height: 800 }, contextOptions: { reducedMotion: "reduce" } });

    test("axe finds nothing on any page and state", async ({ page }) => {
      test.setTimeout(120_000);
      await beginWith(page, { max_tokens: 12, temperature: 0, probabilities: true });
      await page.goto("/");
      await expect(page.getByText("parameters")).toBeVisible();
      await accessible(page, "welcome");
      await page.getByRole("combobox", { name: "Model" }).click();
      await expect(page.getByRole("option").first()).toBeVisible();
      await accessible(page, "menu of models");
      await page.keyboard.press("Escape");
      await ask(page, "What is a bond?");
      await answered(page, 1);
      await accessible(page, "answered");
      await page.getByRole("button", { name: "Show how sure the model was" }).click();
      await page.getByRole("listbox").focus();
      await expect(page.locator(".alternatives li")).toHaveCount(5);
      await accessible(page, "probabilities");
      await openSettings(page);
      await page.getByLabel("Top-p", { exact: true }).fill("2");
      await accessible(page, "settings");
      await closeDialog(page);
      await page.getByRole("button", { name: "How this answer was made" }).click();
      await accessible(page, "details");
      await page.keyboard.press("Escape");
      await page.locator(".context").click();
      await expect(page.getByText("Space for the answer")).toBeVisible();
      await accessible(page, "what the model sees");
      await page.keyboard.press("Escape");
      await page.getByRole("button", { name: "Answer again" }).click();
      await answered(page, 1);
      await expect(answers(page).locator(".branches")).toHaveText("2 of 2");
      await answers(page).getByRole("button", { name: "More actions" }).click();
      await expect(page.getByRole("menuitem", { name: "Fork" })).toBeVisible();
      await accessible(page, "menu of a message");
      await page.getByRole("menuitem", { name: "Delete" }).click();
      await expect(page.getByRole("alertdialog")).toBeVisible();
      await accessible(page, "asks before it deletes");
      await page.keyboard.press("Escape");
      await page.locator(".message-user").hover();
      await page.getByRole("button", { name: "Edit" }).click();
      await accessible(page, "edited");
      await page.keyboard.press("Escape");
      let go: () => void = () => undefined;
      const held = new Promise<void>((resolve) => (go = resolve));
      await page.route("**/v1/chat/completions", (route) => held.then(() => route.abort()));
      await box(page).fill("Nobody answers");
      await page.getByRole("button", { name: "Send" }).click();
      await expect(page.locator(".waiting")).toBeVisible();
      await accessible(page, "waiting");
      // The reader asked for less motion: what pulses elsewhere stands still.
      const longest = await page.evaluate(() => Math.max(0, ...document.getAnimations().map((one) => Number(one.effect?.getComputedTiming().activeDuration))));
      expect(longest).toBeLessThan(1);
      go();
      await expect(page.getByRole("button", { name: "Try again" })).toBeVisible();
      await accessible(page, "failed");
      await page.unroute("**/v1/chat/completions");
      await page.goto("/c/unknown");
      await expect(page.getByText("is not here")).toBeVisible();
      await accessible(page, "missing");
      await page.goto("/compare");
      await ask(page, "What is a share?");
      await expect(page.locator(".column .metrics")).toHaveCount(2);
      await accessible(page, "compare");
      await page.goto("/info");
      await expect(page.locator(".card").first()).toBeVisible();
      await accessible(page, "models");
      if (width < 860) await page.getByRole("button", { name: "Open the sidebar" }).click();
      await page.getByRole("button", { name: "Menu" }).click();
      await expect(page.getByRole("menuitem", { name: "Import" })).toBeVisible();
      await accessible(page, "menu");
      await page.keyboard.press("Escape");
      const message = { id: "a", conversation: "c", parent: null, role: "assistant", content: CONTENT, created: 1, tokens: TOKENS };
      await importFile(page, { format: "tallyformer-conversations", version: 1, conversations: [{ id: "c", title: "Rich", created: 0, updated: 0, leaf: "a" }], messages: [message] });
      await page.getByRole("link", { name: "Rich" }).click();
      await expect(page.locator(".markdown table")).toBeVisible();
      await accessible(page, "rich, with a notice");
    });
  });
}
