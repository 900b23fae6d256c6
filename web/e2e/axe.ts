import AxeBuilder from "@axe-core/playwright";
import type { Page } from "@playwright/test";
import { expect } from "./server";

const TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

/** What colours and widths decide; the rest is the same in every theme and on every screen. */
export const LOOKS = ["color-contrast", "target-size", "scrollable-region-focusable", "meta-viewport"];

/** axe finds nothing; states with an open menu have "menu" in their name. */
export async function expectAccessible(page: Page, state: string, rules?: string[]): Promise<void> {
  const axe = (rules ? new AxeBuilder({ page }).withRules(rules) : new AxeBuilder({ page }).withTags(TAGS))
    // There are no frames, so that it needs no page of its own to look at them together.
    .setLegacyMode()
    // They pass the focus on at once, to what is on the other side of an open menu.
    .exclude("[data-base-ui-focus-guard]");
  // A menu lies above the page, in no landmark; that is not a criterion of WCAG.
  if (state.includes("menu") && !rules) axe.disableRules(["region"]);
  const { violations } = await axe.analyze();
  expect(violations.map((one) => `${state}: ${one.id}: ${one.nodes.map((node) => node.html).join(" | ")}`)).toEqual([]);
}

/** axe finds nothing in the light, nor in the dark, where colours alone are others. */
export async function expectAccessibleInBoth(page: Page, state: string): Promise<void> {
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
  await expectAccessible(page, state);
  await page.emulateMedia({ colorScheme: "dark" });
  await expectAccessible(page, `${state}, dark`, ["color-contrast"]);
}
