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

// What a reader sees or hears stands in src/lib/strings.ts.
const SHOWN = "/^(aria-(label|description|roledescription|valuetext)|title|placeholder|alt|label|lead|text|note|action)$/";
const TEXT = "Literal[value=/[A-Za-z]{2}/]";
const PART = "TemplateElement[value.raw=/[A-Za-z]{2}/]";
const texts = [
  "JSXText[value=/[A-Za-z]/]",
  `JSXElement > JSXExpressionContainer > :matches(${TEXT}, TemplateLiteral > ${PART})`,
  `JSXElement > JSXExpressionContainer > :matches(ConditionalExpression, LogicalExpression) > ${TEXT}`,
  `JSXAttribute[name.name=${SHOWN}] :matches(${TEXT}, ${PART})`,
  `JSXAttribute[name.name=${SHOWN}] > ${TEXT}`,
  `Property[key.name=${SHOWN}] > :matches(${TEXT}, TemplateLiteral > ${PART})`,
  `CallExpression[callee.name=/^(notify|forkAt)$/] > ${TEXT}`,
  `AssignmentExpression[left.property.name=title] ${TEXT}`,
  // A sentence, wherever it is.
  "Literal[value=/^[A-Z][a-z]* [A-Za-z]/]",
].map((selector) => ({ selector, message: "Texts of the page stand in src/lib/strings.ts." }));

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
        ...texts,
      ],
      "max-lines": ["error", 300],
    },
  },
  {
    files: ["src/lib/strings.ts"],
    rules: { "no-restricted-syntax": "off", "max-lines": "off" },
  },
);
