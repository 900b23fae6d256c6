import { beginWith } from "./actions";
import { expect, test } from "./server";

/** Bytes, as they are sent, of all that is fetched before a question can be asked. */
const FIRST_LOAD = 250_000;

test("the first frame waits for nothing large, nothing moves after it, and the first load is small", async ({ page }) => {
  await beginWith(page);
  await page.addInitScript(() => {
    const seen = { shift: 0 };
    Object.assign(window, { seen });
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) seen.shift += (entry as unknown as { value: number }).value;
    }).observe({ type: "layout-shift", buffered: true });
  });
  await page.setViewportSize({ width: 412, height: 823 });
  await page.goto("/");
  await expect(page.getByText("parameters")).toBeVisible();
  const { paint, files, shift } = await page.evaluate(() => ({
    paint: performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? 0,
    files: (performance.getEntriesByType("resource") as PerformanceResourceTiming[]).map(({ name, startTime, encodedBodySize }) => ({ name, startTime, size: encodedBodySize })),
    shift: (window as unknown as { seen: { shift: number } }).seen.shift,
  }));
  expect(paint).toBeGreaterThan(0);
  expect(files.filter((file) => file.size > 10_000 && file.startTime < paint)).toEqual([]);
  expect(files.some((file) => file.size > 50_000)).toBe(true);
  expect(files.reduce((sum, file) => sum + file.size, 0)).toBeLessThanOrEqual(FIRST_LOAD);
  expect(shift).toBeLessThan(0.02);
});

test.describe("the first frame", () => {
  // The browser reports the scripts that do not come on its console.
  test.use({ problems: async ({}, use) => use([]) });

  test("has the chosen theme and sidebar, and only the welcome's own address shows it", async ({ page }) => {
    await page.goto("/");
    await page.getByRole("button", { name: "Menu" }).click();
    await page.getByRole("menuitemradio", { name: "Dark" }).click();
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Close the sidebar" }).click();
    // Without the scripts that come later, the page stays at its first frame.
    await page.route("**/assets/*.js", (route) => route.abort());
    await page.goto("/");
    await expect(page.getByRole("heading", { name: "What would you like to know" })).toBeVisible();
    await expect(page.locator(".sidebar")).toBeHidden();
    expect(await page.evaluate(() => getComputedStyle(document.body).backgroundColor)).toBe("rgb(20, 23, 26)");
    await page.goto("/info");
    await expect(page.getByRole("heading")).toBeHidden();
  });
});
