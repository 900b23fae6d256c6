/** Training runs: live, beside each other, for every eye and hand; and nothing in a run is more than text. */
import { spawn } from "node:child_process";
import { appendFileSync, cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Page } from "@playwright/test";
import { expectAccessible, expectAccessibleInBoth } from "./axe";
import { expect, Server, freePort, test as base } from "./server";

const RUN = process.env.PAGE_RUN ?? "../runs/quickstart";
const EVIL = `<img src=x onerror="window.hacked++">`;

const line = (step: number, loss: number, more: object = {}): string =>
  `${JSON.stringify({ kind: "train", step, tokens: step * 100, epoch: step / 10, loss, grad_norm: 1, [EVIL]: 1, ...more })}\n`;

/** A folder of runs: a whole one, one that trains, one whose name and texts try to be markup, a damaged one. */
class Folder {
  readonly path = mkdtempSync(join(tmpdir(), "runs-"));

  constructor() {
    cpSync(RUN, join(this.path, "whole"), { recursive: true });
    this.add("live", "name: live\ndescription: It trains.\n");
    this.add(EVIL, `name: evil\ndescription: ${JSON.stringify(EVIL)}\n`);
    this.write("live", line(1, 9) + line(2, 8));
    this.write(EVIL, line(1, 5) + line(3, 4));
    mkdirSync(join(this.path, "headless", "pretrain"), { recursive: true });
    mkdirSync(join(this.path, "broken", "pretrain"), { recursive: true });
    writeFileSync(join(this.path, "broken", "pretrain", "manifest.json"), "{");
    this.add("linked", "name: linked\n");
    symlinkSync(join(RUN, "pretrain", "manifest.json"), join(this.path, "linked", "pretrain", "manifest.json"));
  }

  /** A run that has trained in several stages. */
  staged(name: string, stages: readonly string[]): void {
    for (const stage of stages) {
      mkdirSync(join(this.path, name, stage), { recursive: true });
      writeFileSync(join(this.path, name, stage, "metrics.jsonl"), line(1, 3) + line(2, 2));
      writeFileSync(join(this.path, name, stage, "samples.jsonl"), `${JSON.stringify({ step: 2, samples: [{ prompt: "A bond", text: `by ${name} ${stage}`, expected: "" }] })}\n`);
    }
  }

  private add(name: string, recipe: string): void {
    mkdirSync(join(this.path, name, "pretrain"), { recursive: true });
    writeFileSync(join(this.path, name, "recipe.yaml"), recipe);
  }

  write(name: string, lines: string, file = "metrics.jsonl"): void {
    appendFileSync(join(this.path, name, "pretrain", file), lines);
  }
}

const test = base.extend<object, { folder: Folder }>({
  folder: [
    async ({}, use) => {
      const folder = new Folder();
      await use(folder);
      rmSync(folder.path, { recursive: true });
    },
    { scope: "worker" },
  ],
  server: [
    async ({ folder }, use) => {
      const server = new Server(await freePort(), ["--folder", folder.path], "runs");
      await server.start();
      await use(server);
      await server.kill("SIGKILL");
    },
    { scope: "worker", timeout: 120_000 },
  ],
});

const plot = (page: Page, title: string) => page.getByRole("figure").filter({ has: page.getByRole("heading", { name: title, exact: true }) });
const image = (page: Page, title: string) => plot(page, title).getByRole("img");
const entry = (page: Page, name: string) => page.getByRole("link", { name, exact: false });

test("a curve grows while its run trains, and a reload shows the same", async ({ page, folder }) => {
  await page.goto("/");
  await expect(page).toHaveURL(/\/runs$/u);
  await entry(page, "live").click();
  await expect(image(page, "Loss")).toHaveAccessibleName(/training 8\./u);
  await page.getByText("Show as a table: Loss").click();
  const rows = plot(page, "Loss").locator("tbody tr");
  await expect(rows).toHaveCount(2);
  folder.write("live", line(3, 7.5) + '{"kind": "train", "st');
  await expect(rows).toHaveCount(3);
  folder.write("live", 'ep": 4, "loss": 6.25}\n');
  await expect(rows).toHaveCount(4);
  await expect(rows.first()).toHaveText(/^4\s*6\.25$/u);
  await expect(image(page, "Loss")).toHaveAccessibleName(/training 6\.25/u);
  await page.reload();
  await expect(image(page, "Loss")).toHaveAccessibleName(/training 6\.25/u);
});

test("a part of a curve that is chosen stays while new points come, until all is shown again", async ({ page, folder }) => {
  folder.staged("zoomed", ["pretrain"]);
  folder.write("zoomed", Array.from({ length: 30 }, (_, at) => line(at + 3, 3)).join(""));
  await page.goto("/runs?run=zoomed");
  await expect(image(page, "Loss")).toBeVisible();
  const all = plot(page, "Loss").getByRole("button", { name: "Show all" });
  const over = plot(page, "Loss").locator(".u-over");
  const drawn = () => over.evaluate((layer) => {
    const box = layer.getBoundingClientRect();
    return [box.left, box.right, box.top + box.height / 2] as const;
  });
  await over.scrollIntoViewIfNeeded();
  const [left, right, middle] = await drawn();
  await page.mouse.move(left + (right - left) * 0.2, middle);
  await page.mouse.down();
  await page.mouse.move(left + (right - left) * 0.4, middle, { steps: 4 });
  await page.mouse.up();
  await expect(all).toBeVisible();
  /** The step under the middle of the plot. */
  const step = async () => {
    await page.mouse.move((left + right) / 2, middle - 5);
    await page.mouse.move((left + right) / 2 + 1, middle);
    return Number((await plot(page, "Loss").locator(".plot-unit").innerText()).replace("Steps: ", ""));
  };
  const before = await step();
  expect(before).toBeGreaterThan(5);
  expect(before).toBeLessThan(15);
  await page.getByText("Show as a table: Loss").click();
  const rows = plot(page, "Loss").locator("tbody tr");
  // Past the number of points at which a curve is drawn without dots too: that makes a new drawing.
  for (const [from, to] of [[33, 36], [36, 60]] as const) {
    folder.write("zoomed", Array.from({ length: to - from }, (_, at) => line(from + at, 1)).join(""));
    await expect(rows.first()).toHaveText(new RegExp(`^${to - 1}\\s*1$`, "u"));
    await expect(all).toBeVisible();
    expect(await step()).toBe(before);
  }
  // So does another look of the lines, which makes a new drawing of the same values.
  const looks = [() => page.getByLabel("Log scale").check(), () => page.getByLabel("Smoothing").press("ArrowRight"), () => page.getByLabel("Log scale").uncheck()];
  for (const change of looks) {
    await change();
    await expect(all).toBeVisible();
    expect(await step()).toBe(before);
  }
  await all.click();
  await expect(all).toHaveCount(0);
  expect(await step()).toBeGreaterThan(25);
});

test("what the model wrote at each validation can be stepped through, and the newest is followed", async ({ page, folder }) => {
  const said = (step: number, text: string): string => `${JSON.stringify({ step, samples: [{ prompt: "A bond", text, expected: "" }] })}\n`;
  folder.write("live", said(10, "the the") + said(20, "is a bank") + said(30, `is ${EVIL}`), "samples.jsonl");
  await page.goto("/runs?run=live");
  const written = page.getByRole("region", { name: "Written while it trained" });
  await expect(written.getByRole("status")).toHaveText("Step 30, 3 of 3");
  await expect(written.locator(".sample-answer")).toHaveText(`is ${EVIL}`);
  await written.getByRole("button", { name: "Earlier validation" }).click();
  await expect(written.locator(".sample-answer")).toHaveText("is a bank");
  const slider = written.getByRole("slider", { name: "Validation" });
  await slider.press("ArrowLeft");
  await expect(slider).toHaveAttribute("aria-valuetext", "Step 10, 1 of 3");
  await expect(written.locator(".sample-answer")).toHaveText("the the");
  await expect(written.getByRole("button", { name: "Earlier validation" })).toBeDisabled();
  folder.write("live", said(40, "is a loan"), "samples.jsonl");
  await expect(written.getByRole("status")).toHaveText("Step 10, 1 of 4");
  await slider.press("End");
  await expect(written.locator(".sample-answer")).toHaveText("is a loan");
  folder.write("live", said(50, "is a loan to a state"), "samples.jsonl");
  await expect(written.getByRole("status")).toHaveText("Step 50, 5 of 5");
  await expect(written.locator(".sample-answer")).toHaveText("is a loan to a state");
  await page.goto("/runs?run=whole");
  await expect(written.getByRole("listitem")).toHaveCount(3);
});

test("what was shown stays until another stage or run is here", async ({ page, folder }) => {
  folder.staged("staged", ["pretrain", "sft"]);
  folder.staged("other", ["sft"]);
  await page.goto("/runs?run=staged");
  const written = page.locator(".sample-answer");
  await expect(written).toHaveText("by staged sft");
  await expect(image(page, "Loss")).toBeVisible();
  let release = () => {};
  const held: string[] = [];
  /** Answers of what is asked for from now on wait until `release`. */
  const hold = async (what: RegExp) => {
    const released = new Promise<void>((resolve) => (release = resolve));
    held.length = 0;
    await page.route(what, async (route) => {
      held.push(route.request().url());
      await released;
      await route.continue();
    });
  };
  const asked = (what: RegExp) => expect.poll(() => held.some((url) => what.test(url))).toBe(true);
  await hold(/\/(curves|samples)\/pretrain/u);
  await page.getByRole("combobox", { name: "Stage" }).click();
  await page.getByRole("option", { name: "Pretrain" }).click();
  await asked(/curves/u);
  await asked(/samples/u);
  expect(await image(page, "Loss").count()).toBe(1);
  expect(await written.allTextContents()).toEqual(["by staged sft"]);
  await expect(page.locator(".plots")).toHaveAttribute("aria-busy", "true");
  release();
  await expect(written).toHaveText("by staged pretrain");
  await expect(page.locator(".plots")).toHaveAttribute("aria-busy", "false");
  await hold(/\/v1\/runs\/other/u);
  await entry(page, "other").click();
  await asked(/other/u);
  expect(await image(page, "Loss").count()).toBe(1);
  await expect(page.getByRole("heading", { name: "staged", level: 2 })).toBeVisible();
  release();
  await expect(page.getByRole("heading", { name: "other", level: 2 })).toBeVisible();
  await expect(written).toHaveText("by other sft");
  await page.unrouteAll({ behavior: "ignoreErrors" });
});

test("two runs in one plot, with smoothing, a log scale and another axis", async ({ page }) => {
  await page.goto("/runs?run=whole");
  await expect(page.getByRole("heading", { name: "whole", level: 2 })).toBeVisible();
  await page.getByRole("checkbox", { name: "Plot live too" }).check();
  await expect(page).toHaveURL(/with=live/u);
  const legend = plot(page, "Loss").locator(".plot-legend li");
  await expect(legend).toHaveCount(3);
  await expect(image(page, "Loss")).toHaveAccessibleName(/whole, training .*; whole, validation .*; live, training/u);
  const drawn = () => plot(page, "Loss").locator("canvas").evaluate((canvas: HTMLCanvasElement) => canvas.toDataURL());
  let before = await drawn();
  const changed = async () => {
    await expect.poll(drawn).not.toBe(before);
    before = await drawn();
  };
  await page.getByLabel("Log scale").check();
  await changed();
  const values = () => legend.locator("b").allTextContents();
  const exact = await values();
  await page.getByLabel("Smoothing").focus();
  for (let press = 0; press < 20; press += 1) await page.keyboard.press("ArrowRight");
  await expect(page.getByText("0.40")).toBeVisible();
  await changed();
  // Steps are smoothed, a validation is what was measured.
  expect((await values())[0]).not.toBe(exact[0]);
  expect((await values())[1]).toBe(exact[1]);
  await page.getByRole("combobox", { name: "Horizontal axis" }).click();
  await page.getByRole("option", { name: "Tokens" }).click();
  await page.getByText("Show as a table: Loss").click();
  await expect(plot(page, "Loss").locator("thead th").first()).toHaveText("Tokens");
  await page.getByRole("checkbox", { name: "Plot live too" }).uncheck();
  await expect(legend).toHaveCount(2);
});

test("stages, samples and reports of a run; a damaged one says what is wrong", async ({ page, context, folder }) => {
  await page.goto("/runs?run=whole");
  const stages = page.getByRole("region", { name: "Stages" }).getByRole("listitem");
  await expect(stages).toHaveCount(9);
  await expect(stages.filter({ hasText: "Pretrain" })).toHaveText(/Finished.*took/u);
  await expect(stages.filter({ hasText: "Prepare" })).toHaveText(/training tokens [\d,]+/u);
  await expect(stages.filter({ hasText: "Evaluate" })).toHaveText(/manners \d+ of \d+ *arithmetic \d+ of 40 *perplexity of bonds \d/u);
  await expect(stages.filter({ hasText: "Fine-tune" })).toHaveText(/Not in the recipe/u);
  await expect(page.getByRole("region", { name: "Samples" }).getByRole("listitem").first()).toBeVisible();
  const [report] = await Promise.all([context.waitForEvent("page"), page.getByRole("link", { name: "Open evaluate/report.html" }).click()]);
  await expect(report.getByRole("heading", { name: "tiny", level: 1 })).toBeVisible();
  expect(await report.evaluate("window.origin")).toBe("null");
  await report.close();
  // Where scripts run, as axe is one.
  const plain = await context.newPage();
  await plain.goto(pathToFileURL(join(folder.path, "whole", "evaluate", "report.html")).href);
  await expectAccessibleInBoth(plain, "report");
  await plain.close();
  await expect(entry(page, "broken")).toContainText(/Damaged.*pretrain\/manifest\.json: not JSON/u);
  // Its recipe alone is missing.
  await expect(entry(page, "headless")).toContainText(/Damaged.*recipe\.yaml: missing/u);
  await entry(page, "broken").click();
  await expect(page.locator(".run-head")).toContainText(/pretrain\/manifest\.json: not JSON.*or delete the folder of this stage, then run the recipe again\. Completed stages are kept\./u);
  // What is not damaged is not to be deleted.
  for (const [name, says] of [
    ["headless", "Copy the recipe that this run was started with"],
    ["linked", "Links that lead out of the folder of runs are not followed."],
  ] as const) {
    await entry(page, name).click();
    await expect(page.locator(".run-head")).toContainText(says);
    await expect(page.locator(".run-head")).not.toContainText("delete");
  }
});

test("a folder without runs says how to begin one, and fills by itself; nobody is asked for conversations", async ({ page, problems }) => {
  const empty = mkdtempSync(join(tmpdir(), "runs-"));
  const server = new Server(await freePort(), ["--folder", empty], "runs");
  await server.start();
  await page.goto(`${server.url}/runs`);
  await expect(page.getByText("tallyformer run --recipe")).toBeVisible();
  await expect(page.getByRole("searchbox")).toHaveCount(0);
  await expectAccessible(page, "empty");
  mkdirSync(join(empty, "first", "pretrain"), { recursive: true });
  await expect(page.getByRole("heading", { name: "first", level: 2 })).toBeVisible();
  await server.kill("SIGKILL");
  rmSync(empty, { recursive: true });
  problems.length = 0; // this server is not the tests' own
});

test("a run that trains, one that stopped and several in one plot are told apart, in the light and in the dark", async ({ page, folder }) => {
  folder.staged("trains", ["pretrain"]);
  writeFileSync(join(folder.path, "trains", "recipe.yaml"), "name: trains\n");
  writeFileSync(join(folder.path, "trains", "pretrain", "work.txt"), "begun");
  // What a training holds as long as it lives.
  const training = spawn("flock", [join(folder.path, "trains", ".lock"), "sleep", "60"], { detached: true });
  try {
    await page.goto("/runs?run=trains&with=live");
    await expect(page.locator(".run-head .run-state")).toHaveText("Training");
    await expect(entry(page, "live")).toContainText("Not running");
    await expect(page.getByRole("region", { name: "Stages" }).getByRole("listitem").filter({ hasText: "Pretrain" })).toContainText("Running");
    await expect(image(page, "Loss")).toBeVisible();
    await expectAccessibleInBoth(page, "training, with a stopped one beside it");
  } finally {
    // Its group, the one that sleeps too.
    if (training.pid !== undefined) process.kill(-training.pid);
  }
  await expect(page.locator(".run-head .run-state")).toHaveText("Not running");
});

test("names and texts of runs are text", async ({ page }) => {
  await page.goto("/runs");
  await entry(page, EVIL).click();
  await expect(page.getByRole("heading", { name: EVIL, level: 2 })).toBeVisible();
  await expect(plot(page, EVIL)).toBeVisible();
  await expect(page.locator("main img[src=x]")).toHaveCount(0);
  expect(await page.evaluate("window.hacked")).toBeUndefined();
});

for (const [scheme, width] of [["light", 1280], ["dark", 390]] as const) {
  test.describe(`${scheme}, ${width} wide`, () => {
    test.use({ colorScheme: scheme, viewport: { width, height: 800 }, contextOptions: { reducedMotion: "reduce" } });

    test("axe finds nothing on the Runs page, and nothing is wider than it", async ({ page }) => {
      for (const [state, address] of [
        ["one", "/runs?run=whole"],
        ["two", "/runs?run=whole&with=live"],
        ["damaged", "/runs?run=broken"],
      ] as const) {
        await page.goto(address);
        await expect(page.getByRole("region", { name: "Stages" })).toBeVisible();
        if (state !== "damaged") {
          await expect(image(page, "Loss")).toBeVisible();
          await page.getByText("Show as a table: Loss").click();
        }
        await expectAccessible(page, state);
        const wide = await page.locator(".page").evaluate((box) => box.scrollWidth - box.clientWidth);
        expect(wide).toBe(0);
      }
      await page.getByRole("searchbox", { name: "Search runs" }).fill("nothing");
      await expect(page.getByText("No run has these letters")).toBeVisible();
      await expectAccessible(page, "no match");
    });
  });
}
