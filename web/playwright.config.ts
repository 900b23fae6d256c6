import { defineConfig } from "@playwright/test";

// The server and its models are started by tests/web/, which gives the address.
const baseURL = process.env.PAGE_URL ?? "http://127.0.0.1:8000";

export default defineConfig({
  testDir: "e2e",
  timeout: 120_000,
  expect: { timeout: 20_000 },
  workers: 1,
  // On a machine shared with other tests; `tests/web/` names what needed it.
  retries: process.env.CI ? 1 : 0,
  forbidOnly: true,
  reporter: [["list"]],
  outputDir: process.env.PAGE_RESULTS ?? "test-results",
  use: {
    baseURL,
    screenshot: "only-on-failure",
    launchOptions: {
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP page.lan 127.0.0.1"],
    },
  },
});
