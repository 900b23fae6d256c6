import parseMarkdown from "react-markdown";
import rehypeKatex from "rehype-katex";
import remarkGfm from "remark-gfm";
import remarkMath from "remark-math";
import { BASE_OPTIONS, MOST_KEPT } from "./Rich";
import { dollarsOnly, withDollars } from "./mathematics";
import { remembering } from "./remembering";

/** MathML alone: browsers draw it themselves, without fonts, styles or scripts. */
const parse = (text: string) =>
  parseMarkdown({
    ...BASE_OPTIONS,
    remarkPlugins: [remarkGfm, [remarkMath, { singleDollarTextMath: dollarsOnly(text) }]],
    rehypePlugins: [[rehypeKatex, { output: "mathml", strict: false, trust: false, throwOnError: false, errorColor: "inherit", maxExpand: 100, maxSize: 20 }]],
    children: withDollars(text),
  });
const remembered = remembering(parse, MOST_KEPT);

export function WithMathematics({ text, growing }: { text: string; growing: boolean }) {
  return growing ? parse(text) : remembered(text);
}
