import boundaries from "eslint-plugin-boundaries";
import hooks from "eslint-plugin-react-hooks";
import tseslint from "typescript-eslint";

// From the lowest to the highest: a file imports from its own layer or from lower ones.
const LAYERS = ["lib", "api", "store", "ui", "markdown", "parts", "features", "app"];

const elements = LAYERS.map((type) =>
  type === "features"
    ? { type, pattern: "src/features/*", capture: ["feature"] }
    : { type, pattern: `src/${type}` },
);

const policies = LAYERS.map((from, level) => ({
  from: { element: { type: from } },
  allow: {
    to: [
      ...LAYERS.slice(0, level).map((type) => ({ element: { type } })),
      // A feature never imports another one.
      from === "features"
        ? { element: { type: from, captured: { feature: "{{ from.element.captured.feature }}" } } }
        : { element: { type: from } },
    ],
  },
}));

export default tseslint.config(
  { ignores: ["node_modules", "src/api/schema.ts", "playwright-report", "test-results"] },
  ...tseslint.configs.strict,
  {
    files: ["src/**/*.{ts,tsx}"],
    plugins: { boundaries, "react-hooks": hooks },
    settings: {
      "boundaries/elements": elements,
      "boundaries/ignore": ["src/main.ts"],
      "import/resolver": { typescript: { project: "tsconfig.json" } },
    },
    rules: {
      ...hooks.configs.recommended.rules,
      "boundaries/dependencies": ["error", { default: "disallow", policies }],
      "no-restricted-globals": ["error", "confirm", "alert", "prompt"],
      "no-restricted-properties": ["error", { object: "crypto", property: "randomUUID", message: "Plain HTTP has none: lib/ids." }],
      "no-restricted-syntax": [
        "error",
        { selector: "JSXAttribute[name.name='dangerouslySetInnerHTML']", message: "Text stays text." },
      ],
      "max-lines": ["error", 300],
    },
  },
);
