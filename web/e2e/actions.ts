import type { Page } from "@playwright/test";
import { expect } from "./server";

export const box = (page: Page) => page.getByLabel("Your message");
export const answers = (page: Page) => page.locator(".message-assistant");

export async function ask(page: Page, text: string): Promise<void> {
  await box(page).fill(text);
  // Once a model is there to ask.
  await expect(page.locator(".composer .send")).toBeEnabled();
  await box(page).press("Enter");
}

/** Waits until the newest answer has ended. */
export async function answered(page: Page, count: number): Promise<void> {
  await expect(answers(page)).toHaveCount(count);
  await expect(answers(page).last()).toHaveAttribute("aria-busy", "false");
}

export async function openSettings(page: Page): Promise<void> {
  await page.getByRole("button", { name: "Settings", exact: true }).click();
  await expect(page.locator(".dialog")).toBeVisible();
}

export async function closeDialog(page: Page): Promise<void> {
  await page.keyboard.press("Escape");
  // Notices have the role of a dialog too.
  await expect(page.locator(".dialog")).toBeHidden();
}

/** Settings of new conversations; answers of 12 tokens unless it says otherwise. */
export async function beginWith(page: Page, settings: object = { max_tokens: 12, temperature: 0 }): Promise<void> {
  await page.addInitScript((defaults) => {
    if (localStorage.getItem("tallyformer.preferences") === null) {
      localStorage.setItem("tallyformer.preferences", JSON.stringify({ defaults }));
    }
  }, settings);
}

/** Minutes, even of the tiny model: on however slow a machine a test stops it before it ends. */
export const LONG = { max_tokens: 1_000_000, temperature: 0 };

export async function importFile(page: Page, content: unknown): Promise<void> {
  const buffer = Buffer.from(JSON.stringify(content));
  await page.locator('input[type="file"]').setInputFiles({ name: "import.json", mimeType: "application/json", buffer });
}

/** All that a table of the page's database holds. */
export function stored(page: Page, table: string): Promise<Record<string, unknown>[]> {
  return page.evaluate(async (name) => {
    const result = <T>(request: IDBRequest<T>) =>
      new Promise<T>((resolve, reject) => {
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(new Error(String(request.error)));
      });
    const base = await result(indexedDB.open("tallyformer"));
    const all = await result(base.transaction(name).objectStore(name).getAll() as IDBRequest<Record<string, unknown>[]>);
    base.close();
    return all;
  }, table);
}
