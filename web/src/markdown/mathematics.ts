/** In texts about money a dollar sign is mostly money. */
const MONEY = /\$\s?\d[\d,.]*(?![\d,.]*\s*[\\^_=+*/-])/u;

/** Whether `$...$` is mathematics: not where an amount of money stands. */
export const dollarsOnly = (text: string): boolean => !MONEY.test(text);

/** `\(...\)` and `\[...\]` as markdown's mathematics; code stays as it is. */
export function withDollars(text: string): string {
  return text
    .split(/(```[\s\S]*?(?:```|$)|`[^`\n]*`)/u)
    .map((part, at) => (at % 2 === 1 ? part : mathematicsOf(part)))
    .join("");
}

function mathematicsOf(part: string): string {
  return part
    .replace(/\\\[([\s\S]+?)\\\]/gu, (_, inner: string) => `\n$$\n${inner.trim()}\n$$\n`)
    .replace(/\\\((.+?)\\\)/gu, (_, inner: string) => `$$${inner}$$`);
}
