/** A conversation is a tree: an edited question or another answer is a sibling. Pure. */

export interface Node {
  id: string;
  parent: string | null;
  created: number;
}

/** Messages from the first to `leaf`. */
export function pathTo<T extends Node>(nodes: ReadonlyMap<string, T>, leaf: string | null): T[] {
  const path: T[] = [];
  const seen = new Set<string>();
  for (let id = leaf; id !== null && !seen.has(id); ) {
    const node = nodes.get(id);
    if (!node) break;
    seen.add(id);
    path.push(node);
    id = node.parent;
  }
  return path.reverse();
}

const byAge = (a: Node, b: Node): number => a.created - b.created || (a.id < b.id ? -1 : 1);

/** Children of each message, the oldest first; those without a parent are at null. */
export function childrenOf<T extends Node>(nodes: Iterable<T>): Map<string | null, T[]> {
  const children = new Map<string | null, T[]>();
  for (const node of nodes) {
    const siblings = children.get(node.parent);
    if (siblings) siblings.push(node);
    else children.set(node.parent, [node]);
  }
  for (const siblings of children.values()) siblings.sort(byAge);
  return children;
}

/** The end of the newest branch below a message. */
export function newestLeaf<T extends Node>(children: ReadonlyMap<string | null, T[]>, from: string): string {
  let id = from;
  const seen = new Set([from]);
  for (let next = children.get(id)?.at(-1); next && !seen.has(next.id); next = children.get(id)?.at(-1)) {
    id = next.id;
    seen.add(id);
  }
  return id;
}

/** A message and all below it. */
export function subtree<T extends Node>(children: ReadonlyMap<string | null, T[]>, from: string): string[] {
  const ids = new Set([from]);
  for (const id of ids) for (const child of children.get(id) ?? []) ids.add(child.id);
  return [...ids];
}

/** New records where something changed, the old ones elsewhere, so that nothing else is drawn again. */
export function keepSame<T extends { id: string; revision: number }>(before: ReadonlyMap<string, T>, now: T[]): Map<string, T> {
  return new Map(
    now.map((record) => {
      const old = before.get(record.id);
      return [record.id, old?.revision === record.revision ? old : record];
    }),
  );
}
