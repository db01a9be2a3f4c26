// How figures are said: the words of the command line.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const one = new Intl.NumberFormat("en-US", { maximumFractionDigits: 1, minimumFractionDigits: 1 });

export const count = (number) => whole.format(number);
export const rate = (number) => (number >= 100 ? whole : one).format(number);
export const several = (number, singular, plural) => `${count(number)} ${number === 1 ? singular : plural || singular + "s"}`;
export const share = (part) => (part > 0 && part < 0.01 ? "< 1 %" : `${Math.round(part * 100)} %`);

// Exact amounts arrive as text, and are cut for reading, never rounded up to what was not spent.
export function dollars(text, digits = 2) {
  if (text === null || text === undefined) return "unknown";
  const [before, after = ""] = String(text).split(".");
  const small = before === "0" && /^0*$/.test(after.slice(0, digits)) && /[1-9]/.test(after);
  const shown = after.slice(0, small ? Math.max(digits, after.search(/[1-9]/) + 2) : digits).padEnd(digits, "0");
  return `$${whole.format(BigInt(before.replace("-", "") || "0"))}.${shown}`;
}

export function duration(seconds) {
  if (seconds < 10) return `${one.format(Math.max(0, seconds))} s`;
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${String(s % 60).padStart(2, "0")} s`;
  if (s < 172800) return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, "0")} min`;
  return `${Math.floor(s / 86400)} days`;
}

export function moment(stamp) {
  if (!stamp) return "";
  const at = new Date(stamp);
  const two = (number) => String(number).padStart(2, "0");
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return at.toDateString() === new Date().toDateString() ? clock : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock}`;
}

export const words = (name) => String(name).replaceAll("_", " ");
