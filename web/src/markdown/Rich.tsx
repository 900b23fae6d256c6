import { Copy } from "lucide-react";
import { type ComponentProps, memo, Suspense, type ReactNode } from "react";
import parseMarkdown, { type Components, type Options } from "react-markdown";
import remarkGfm from "remark-gfm";
import { copyText } from "../lib/clipboard";
import { strings } from "../lib/strings";
import { IconButton } from "../ui/Button";
import { late, tellNotFetched } from "../ui/late";
import { notify } from "../ui/toasts";
import { safeAddress } from "./address";
import { remembering } from "./remembering";

const MATHEMATICS = /\$[^$\s]|\$\$|\\\(|\\\[/u;

function Link({ href, children }: ComponentProps<"a">) {
  const address = safeAddress(href);
  if (address === undefined) return <span>{children}</span>;
  return (
    <a href={address} target="_blank" rel="noopener noreferrer nofollow" title={address}>
      {children}
    </a>
  );
}

/** An image is never loaded: its text stands there, and its address is a link that one may follow. */
function Picture({ src, alt }: ComponentProps<"img">) {
  const address = safeAddress(typeof src === "string" ? src : undefined);
  const name = strings.message.image(alt ?? "");
  return address === undefined ? <span className="no-image">{name}</span> : <Link href={address}>{name}</Link>;
}

function textOf(node: ReactNode): string {
  if (typeof node === "string") return node;
  if (Array.isArray(node)) return node.map(textOf).join("");
  if (typeof node === "object" && node !== null && "props" in node) {
    return textOf((node.props as { children?: ReactNode }).children);
  }
  return "";
}

function CodeBlock({ children }: ComponentProps<"pre">) {
  const copy = async () => {
    const done = await copyText(textOf(children).replace(/\n$/u, ""));
    notify(done ? { text: strings.message.copied } : { text: strings.message.copyFailed, problem: true });
  };
  return (
    <div className="code-block">
      <pre tabIndex={0} role="region" aria-label={strings.code.label}>
        {children}
      </pre>
      <IconButton className="code-copy" label={strings.code.copy} icon={<Copy />} onClick={() => void copy()} />
    </div>
  );
}

function Table({ children }: ComponentProps<"table">) {
  return (
    <div className="table-scroll" tabIndex={0} role="region" aria-label={strings.code.table}>
      <table>{children}</table>
    </div>
  );
}

/** A heading in an answer is below the page's own. */
const heading = (level: 2 | 3 | 4) => {
  const Tag = `h${level}` as const;
  return ({ children }: { children?: ReactNode }) => <Tag>{children}</Tag>;
};

const components: Components = {
  a: Link,
  img: Picture,
  pre: CodeBlock,
  table: Table,
  input: ({ checked }) => <span>{checked ? "☑" : "☐"}</span>,
  h1: heading(2),
  h2: heading(2),
  h3: heading(3),
  h4: heading(4),
  h5: heading(4),
  h6: heading(4),
};

/** HTML in the text stays text; addresses are checked where they are used. */
export const BASE_OPTIONS: Options = {
  components,
  remarkPlugins: [remarkGfm],
  urlTransform: (address) => address,
  skipHtml: false,
};

/** How many parsed blocks are kept: those that one scrolls back to are drawn without being parsed again. */
export const MOST_KEPT = 2000;

const parse = (text: string) => parseMarkdown({ ...BASE_OPTIONS, children: text });
const remembered = remembering(parse, MOST_KEPT);

interface BlockProps {
  text: string;
  /** It is longer in the next frame, and never asked for again as it is now. */
  growing: boolean;
}

const Plain = ({ text, growing }: BlockProps) => (growing ? parse(text) : remembered(text));

const WithMathematics = late(() => import("./WithMathematics").then((file) => file.WithMathematics), Plain, tellNotFetched);

const Block = memo(function Block({ text, growing }: BlockProps) {
  if (!MATHEMATICS.test(text)) return <Plain text={text} growing={growing} />;
  return (
    <Suspense fallback={<Plain text={text} growing={growing} />}>
      <WithMathematics text={text} growing={growing} />
    </Suspense>
  );
});

/** Parts of a text, each parsed once. */
export function Rich({ blocks, growing }: { blocks: string[]; growing: boolean }) {
  return blocks.map((block, at) => <Block key={at} text={block} growing={growing && at === blocks.length - 1} />);
}
