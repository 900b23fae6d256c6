const format = (notation: "standard" | "compact", digits: number) => new Intl.NumberFormat("en", { notation, maximumSignificantDigits: digits });
const DIGITS = 4;
const short = format("standard", DIGITS);
const compact = format("compact", DIGITS - 1);

/** Any number of a run, in the room of a legend: 3.217, 0.0006, 1.2e-7, 153K; with more digits where it is told how many. */
export function value(number: number, digits?: number): string {
  const size = Math.abs(number);
  if (size !== 0 && size < 1e-4) return Number(number.toPrecision(digits ?? 2)).toExponential();
  if (digits !== undefined && digits > DIGITS) return format(size >= 1e5 ? "compact" : "standard", digits).format(number);
  return (size >= 1e5 ? compact : short).format(number);
}

/** Seconds as a person says them: 48 s, 13 min 8 s, 2 h 5 min. */
export function time(seconds: number): string {
  if (seconds < 60) return `${short.format(Math.round(seconds * 10) / 10)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat("en", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

/** A time of day, with the date unless it is today's. */
export function when(seconds: number, now: Date): string {
  const date = new Date(seconds * 1000);
  return (date.toDateString() === now.toDateString() ? clock : day).format(date);
}
