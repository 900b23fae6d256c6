import { answered, answers, ask, beginWith, box, importFile } from "./actions";
import { expect, test } from "./server";

/** Bytes, as they are sent, of all that a first visit fetches until nothing more comes. */
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

test("a first visit, of the welcome or an empty chat, fetches little until nothing more comes", async ({ browser, server }) => {
  for (const path of ["/", "/c/unknown"]) {
    const context = await browser.newContext();
    const page = await context.newPage();
    const line = await context.newCDPSession(page);
    await line.send("Network.enable");
    const names = new Map<string, string>();
    const came: [string, number][] = [];
    line.on("Network.requestWillBeSent", ({ requestId, request }) => names.set(requestId, new URL(request.url).pathname));
    // Heads and bodies, as they come over the line.
    line.on("Network.loadingFinished", ({ requestId, encodedDataLength }) => came.push([names.get(requestId) ?? "", encodedDataLength]));
    await page.goto(server.url + path);
    await expect(page.getByText(path === "/" ? "parameters" : "is not here")).toBeVisible();
    // What a timer fetches later is part of it.
    await page.waitForTimeout(2500);
    await page.waitForLoadState("networkidle");
    expect(came.some(([name, size]) => name.includes("/react-") && size > 50_000)).toBe(true);
    expect(came.reduce((sum, [, size]) => sum + size, 0), JSON.stringify(came)).toBeLessThanOrEqual(FIRST_LOAD);
    await context.close();
  }
});

test.describe("the parser of answers is fetched before their first word", () => {
  test("where a suggested question is asked", async ({ page }) => {
    await page.goto("/");
    await expect(page.getByText("parameters")).toBeVisible();
    // No answer ever comes.
    await page.route("**/v1/chat/completions", () => undefined);
    const fetched = page.waitForRequest(/assets\/Rich-/u);
    await page.getByRole("button", { name: "What is inflation?" }).click();
    await fetched;
  });

  test("where a question to several models is written", async ({ page }) => {
    await page.goto("/compare");
    await expect(page.locator(".column")).toHaveCount(2);
    const fetched = page.waitForRequest(/assets\/Rich-/u);
    await box(page).fill("W");
    await fetched;
  });
});

test("settings that are long in coming are said to be loading", async ({ page }) => {
  let release = () => {};
  const released = new Promise<void>((resolve) => (release = resolve));
  await page.route("**/assets/SettingsDialog-*.js", async (route) => {
    await released;
    await route.continue();
  });
  await page.goto("/");
  await page.getByRole("button", { name: "Settings", exact: true }).click();
  const loading = page.getByRole("status").filter({ hasText: "Loading…" });
  await expect(loading).toBeVisible();
  release();
  await expect(page.locator(".dialog")).toBeVisible();
  await expect(loading).toHaveCount(0);
});

test.describe("code that does not come", () => {
  // The browser reports it on its console.
  test.use({ problems: async ({}, use) => use([]) });
  const SAYS = "Check that the server runs and that you are connected, then reload the page.";

  test("leaves answers as they were written, and says what to do", async ({ page }) => {
    await beginWith(page);
    await page.goto("/");
    await expect(page.getByText("parameters")).toBeVisible();
    await page.route("**/assets/Rich-*.js", (route) => route.abort());
    await ask(page, "What is a bond?");
    await answered(page, 1);
    await expect(page.getByText(SAYS).first()).toBeVisible();
    await expect(answers(page).last().locator(".as-written")).not.toBeEmpty();
    await expect(answers(page).last()).toContainText("12 tokens");
    await page.unrouteAll();
    await page.getByRole("button", { name: "Reload" }).click();
    await expect(answers(page).last().locator(".markdown")).not.toBeEmpty();
    await expect(page.locator(".as-written")).toHaveCount(0);
  });

  test("leaves mathematics as it was written beside tables that are drawn", async ({ page }) => {
    await page.goto("/");
    await page.route("**/assets/WithMathematics-*.js", (route) => route.abort());
    const message = { id: "a", conversation: "c", parent: null, role: "assistant", content: "It is $x^2$.\n\n| a | b |\n| - | - |\n| 1 | 2 |", created: 1 };
    await importFile(page, { format: "tallyformer-conversations", version: 1, conversations: [{ id: "c", title: "Square", created: 0, updated: 0, leaf: "a" }], messages: [message] });
    await page.getByRole("link", { name: "Square" }).click();
    await expect(page.getByText(SAYS).first()).toBeVisible();
    await expect(page.locator(".markdown")).toContainText("$x^2$");
    await expect(page.locator(".markdown table")).toBeVisible();
  });

  test("leaves the rest of the page, which says what to do", async ({ page }) => {
    await page.goto("/");
    await expect(page.getByText("parameters")).toBeVisible();
    await page.route(/assets\/(RunsPage|ComparePage|ModelsPage|SettingsDialog)-.*\.js/u, (route) => route.abort());
    for (let time = 1; time <= 2; time++) {
      await page.getByRole("button", { name: "Settings", exact: true }).click();
      await expect(page.getByText(SAYS).first()).toBeVisible();
      await page.locator(".toast").getByLabel("Close").click();
      await expect(page.getByText(SAYS)).toHaveCount(0);
    }
    for (const link of ["Compare models", "Models"]) {
      await page.getByRole("link", { name: link, exact: true }).click();
      await expect(page.getByRole("alert")).toContainText(SAYS);
    }
    await page.unrouteAll();
    await page.getByRole("button", { name: "Reload" }).click();
    await expect(page.locator(".card").first()).toBeVisible();
    await page.route("**/assets/start-*.js", (route) => route.abort());
    await page.goto("/");
    await expect(page.getByRole("alert")).toContainText(SAYS);
  });

  test("at all leaves the first frame, which says so", async ({ page }) => {
    await page.route("**/assets/index-*.js", (route) => route.abort());
    for (const path of ["/", "/runs"]) {
      await page.goto(path);
      await expect(page.getByRole("alert")).toContainText(SAYS);
    }
    await page.unrouteAll();
    // Or one that it imports.
    await page.route("**/assets/rolldown-runtime-*.js", (route) => route.abort());
    await page.goto("/");
    await expect(page.getByRole("alert")).toContainText(SAYS);
    await page.unrouteAll();
    await page.route("**/assets/index-*.js", (route) => route.fulfill({ contentType: "text/javascript", body: "not a script" }));
    await page.goto("/");
    await expect(page.getByRole("alert")).toContainText(SAYS);
  });

  test("or fails at once is said on the page, and on the console why", async ({ page }) => {
    const said: string[] = [];
    page.on("console", (message) => said.push(message.text()));
    const throwing = (what: string) => ({ contentType: "text/javascript", body: `throw new Error("thrown by ${what}");` });
    await page.route("**/assets/ModelsPage-*.js", (route) => route.fulfill(throwing("a page")));
    await page.goto("/info");
    await expect(page.getByRole("alert")).toContainText(SAYS);
    await expect.poll(() => said.join("\n")).toContain("thrown by a page");
    await page.route("**/assets/start-*.js", (route) => route.fulfill(throwing("the start")));
    await page.goto("/");
    await expect(page.getByRole("alert")).toContainText(SAYS);
    await expect.poll(() => said.join("\n")).toContain("thrown by the start");
  });
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
