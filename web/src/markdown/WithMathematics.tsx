import ReactMarkdown from "react-markdown";
import rehypeKatex from "rehype-katex";
import remarkGfm from "remark-gfm";
import remarkMath from "remark-math";
import { BASE_OPTIONS } from "./Rich";
import { dollarsOnly, withDollars } from "./mathematics";

/** MathML alone: browsers draw it themselves, without fonts, styles or scripts. */
export default function WithMathematics({ text }: { text: string }) {
  return (
    <ReactMarkdown
      {...BASE_OPTIONS}
      remarkPlugins={[remarkGfm, [remarkMath, { singleDollarTextMath: dollarsOnly(text) }]]}
      rehypePlugins={[[rehypeKatex, { output: "mathml", strict: false, trust: false, throwOnError: false, maxExpand: 100, maxSize: 20 }]]}
    >
      {withDollars(text)}
    </ReactMarkdown>
  );
}
