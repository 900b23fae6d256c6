import { shortened } from "./names";

/** A run's name in little room; whole for those who listen, and where the pointer rests. */
export function RunName({ id, most }: { id: string; most: number }) {
  const short = shortened(id, most);
  if (short === id) return <>{id}</>;
  return (
    <>
      <span aria-hidden="true" title={id}>
        {short}
      </span>
      <span className="visually-hidden">{id}</span>
    </>
  );
}
