import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";
import { firstFrame } from "./plugins/first-frame";

const API = process.env.TALLYFORMER_API ?? "http://127.0.0.1:8000";
const PATHS = ["/v1", "/tokenize", "/detokenize", "/welcome", "/ready", "/health", "/openapi.json"];

export default defineConfig({
  plugins: [react(), firstFrame()],
  resolve: {
    alias: {
      // In browsers it parses with innerHTML, which the page's policy forbids; this one is plain code.
      "hast-util-from-html-isomorphic": fileURLToPath(new URL("node_modules/hast-util-from-html-isomorphic/lib/index.js", import.meta.url)),
    },
  },
  build: {
    outDir: process.env.PAGE_OUT ?? "../src/tallyformer/server/page",
    emptyOutDir: true,
    target: "es2022",
    // Small files would become data: addresses, which the page's policy forbids for scripts.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    rolldownOptions: {
      output: {
        // What every start needs, each evaluated in a task of its own: see src/main.ts.
        codeSplitting: {
          groups: [
            { name: "react", test: /node_modules\/(react|react-dom|scheduler)\//u },
            { name: "database", test: /node_modules\/dexie/u },
            { name: "kit", test: /node_modules\/(@base-ui|@floating-ui)\//u },
            // One file instead of many small ones, each of which would be asked for with a head of its own.
            { name: "shared", test: /src\/(lib|api|store|ui)\/|node_modules\/(lucide-react|wouter|zustand|regexparam|eventsource-parser)\//u },
          ],
        },
      },
    },
  },
  server: { proxy: Object.fromEntries(PATHS.map((path) => [path, { target: API, changeOrigin: true }])) },
  test: { include: ["tests/**/*.test.ts"], environment: "node" },
});
