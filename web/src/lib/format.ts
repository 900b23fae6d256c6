const number = new Intl.NumberFormat("en");
const one = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const count = (value: number): string => number.format(value);

/** Tokens a second: one decimal below 100. */
export const rate = (value: number): string => (value < 100 ? one : number).format(value < 100 ? value : Math.round(value));

/** Milliseconds as ms or s. */
export const duration = (ms: number): string => (ms < 1000 ? `${Math.round(ms)} ms` : `${one.format(ms / 1000)} s`);

/** Parameters of a model: 51M, 4.2M, 1.3B. */
const many = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
export const parameters = (value: number): string => many.format(value);

export const percent = (share: number): string => `${one.format(share * 100)}%`;
