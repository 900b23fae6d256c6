const FENCE = /^ {0,3}(`{3,}|~{3,})/u;

/** Parts of a text between blank lines, code and mathematics whole.
 *
 * While an answer grows only its last part changes, so that the others need not be parsed again.
 */
export function blocksOf(text: string): string[] {
  const blocks: string[] = [];
  let lines: string[] = [];
  let fence: string | null = null;
  let mathematics = false;
  for (const line of text.split("\n")) {
    const mark = FENCE.exec(line)?.[1];
    if (fence === null && mark !== undefined) fence = mark;
    else if (fence !== null && mark?.startsWith(fence)) fence = null;
    else if (fence === null && line.trim() === "$$") mathematics = !mathematics;
    const loose = line.trim() === "" && fence === null && !mathematics;
    if (loose && lines.length > 0) {
      blocks.push(lines.join("\n"));
      lines = [];
    } else if (!loose) lines.push(line);
  }
  if (lines.length > 0) blocks.push(lines.join("\n"));
  return blocks;
}
