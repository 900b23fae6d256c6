/** A real server with a real model, on a free port of this machine. */
import { type ChildProcess, spawn } from "node:child_process";
import { createServer } from "node:net";
import { test as base } from "@playwright/test";

const PROGRAM = process.env.TALLYFORMER ?? "../.venv/bin/tallyformer";
const MODEL = process.env.PAGE_MODEL ?? "../runs/quickstart/model";

export class Server {
  private process: ChildProcess | null = null;

  constructor(
    readonly port: number,
    private readonly options: string[],
    private readonly command: "serve" | "runs" = "serve",
  ) {}

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async start(): Promise<void> {
    const grace = this.command === "serve" ? ["--shutdown-grace", "0"] : [];
    const started = spawn(PROGRAM, [this.command, "--port", String(this.port), ...grace, ...this.options], {
      stdio: ["ignore", "ignore", process.env.PAGE_LOG ? "inherit" : "ignore"],
    });
    this.process = started;
    for (;;) {
      const ready = await fetch(`${this.url}/ready`).then(
        (response) => response.ok,
        () => false,
      );
      if (ready) return;
      if (started.exitCode !== null) throw new Error(`the server ended with ${started.exitCode}`);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }

  async kill(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    const running = this.process;
    this.process = null;
    if (!running || running.exitCode !== null) return;
    const ended = new Promise((resolve) => running.once("exit", resolve));
    running.kill(signal);
    await ended;
  }

  /** How many answers are being made, by the server's own count. */
  running(): Promise<number> {
    return this.sum("tallyformer_running_answers");
  }

  /** How many answers wait until others have been made. */
  waiting(): Promise<number> {
    return this.sum("tallyformer_waiting_answers");
  }

  /** A number of the server's metrics, over all of its models, or of one. */
  async sum(name: string, model = ""): Promise<number> {
    const text = await (await fetch(`${this.url}/metrics`)).text();
    const counts = [...text.matchAll(new RegExp(`^${name}\\{model="${model || ".*"}"\\} (\\S+)$`, "gmu"))];
    if (counts.length === 0) throw new Error(`the server's metrics have no ${name}`);
    return counts.reduce((sum, found) => sum + Number(found[1]), 0);
  }
}

export function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const listener = createServer().listen(0, "127.0.0.1", () => {
      const address = listener.address();
      listener.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}

export async function startServer(...options: string[]): Promise<Server> {
  const models = ["--model", `sft=${MODEL}`, "--model", `pretrain=${MODEL}`];
  const server = new Server(await freePort(), [...models, ...options]);
  await server.start();
  return server;
}

/** Leads here by playwright.config.ts, and is not a secure context: plain HTTP, as in a local network. */
export const LAN_NAME = "page.lan";

/** Names are anything printable without an equals sign, so one of them tries to be markup. */
const OPTIONS = ["--allowed-host", LAN_NAME, "--model", `<img src onerror><script>window.hacked++</script>=${MODEL}`];

export const test = base.extend<{ problems: string[] }, { server: Server }>({
  server: [
    async ({}, use) => {
      const server = await startServer(...OPTIONS);
      await use(server);
      await server.kill("SIGKILL");
    },
    { scope: "worker", timeout: 120_000 },
  ],
  baseURL: async ({ server }, use) => use(server.url),
  // Whatever the browser complains of fails the test: errors of scripts, of the policy, of the network.
  problems: [
    async ({ page, server }, use) => {
      const problems: string[] = [];
      page.on("pageerror", (error) => problems.push(error.message));
      page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
      page.on("request", (request) => {
        if (new URL(request.url()).port !== String(server.port) && !request.url().startsWith("blob:")) problems.push(`foreign: ${request.url()}`);
      });
      await use(problems);
      if (problems.length > 0) throw new Error(problems.join("\n"));
    },
    { auto: true },
  ],
});

export { expect } from "@playwright/test";
