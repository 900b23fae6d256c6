import { Component, memo, Suspense, useMemo, type ReactNode } from "react";
import { late, tellNotFetched } from "../ui/late";
import { blocksOf } from "./blocks";

const AsWritten = ({ text }: { text: string }) => <p className="as-written">{text}</p>;

const load = () => import("./Rich").then((file) => file.Rich);
const Rich = late(load, ({ blocks }) => <AsWritten text={blocks.join("\n\n")} />, tellNotFetched);

/** Begins to fetch the parser: an answer will be wanted soon. */
export const expectMarkdown = (): void => void load().catch(() => undefined);

/** A text that a parser cannot take is shown as it was written, and the page goes on. */
class Fallback extends Component<{ text: string; children: ReactNode }, { failed: boolean }> {
  override state = { failed: false };

  static getDerivedStateFromError(): { failed: boolean } {
    return { failed: true };
  }

  override render(): ReactNode {
    return this.state.failed ? <AsWritten text={this.props.text} /> : this.props.children;
  }
}

/** Text with markdown, tables, code and mathematics; nothing in it is loaded or run.
 *
 * Until the parser has come, it is shown as it was written.
 */
export const Markdown = memo(function Markdown({ text, growing = false }: { text: string; growing?: boolean }) {
  const blocks = useMemo(() => (growing ? blocksOf(text) : [text]), [text, growing]);
  return (
    <div className="markdown" dir="auto">
      <Fallback text={text}>
        <Suspense fallback={<AsWritten text={text} />}>
          <Rich blocks={blocks} growing={growing} />
        </Suspense>
      </Fallback>
    </div>
  );
});
