/** Numbers, durations and sizes as text. */

const GROUPED = new Intl.NumberFormat("en");
const UNITS = ["B", "kB", "MB", "GB"];

/** 1234567 as 1,234,567. @param {number} number */
export function count(number) {
  return GROUPED.format(number);
}

/** "1 message" or "1,204 messages". @param {number} number @param {string} [noun] */
export function messages(number, noun = "message") {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** 83500 as 83.5 kB. @param {number} number */
export function bytes(number) {
  const power = number < 1000 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log10(number) / 3));
  return `${short(number / 1000 ** power)} ${UNITS[power]}`;
}

/** Seconds as 0.4 s, 12 s, 5 min, 3 h or 2 d. @param {number} seconds */
export function duration(seconds) {
  if (seconds < 90) return `${short(seconds)} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

/** One decimal below 10, none above. @param {number} number */
export function short(number) {
  return number < 9.95 ? String(Math.round(number * 10) / 10) : String(Math.round(number));
}

/** The time of day in this browser's time zone, such as 14:03:22. @param {string | number} timestamp */
export function clock(timestamp) {
  return new Date(timestamp).toLocaleTimeString("en-GB");
}

/** The date and the time of day, such as 31 Jan 2026, 14:03:22. @param {string | number} timestamp */
export function moment(timestamp) {
  return `${new Date(timestamp).toLocaleDateString("en-GB", { dateStyle: "medium" })}, ${clock(timestamp)}`;
}

/** How long ago this was. @param {string} timestamp @param {number} [now] in milliseconds */
export function age(timestamp, now = Date.now()) {
  return duration(Math.max(0, Math.round((now - Date.parse(timestamp)) / 1000)));
}

/** The time of day with milliseconds. @param {string | number} timestamp */
export function time(timestamp) {
  const milliseconds = new Date(timestamp).getMilliseconds();
  return `${clock(timestamp)}.${String(milliseconds).padStart(3, "0")}`;
}

/** An error of the server as a sentence. @param {string} text */
export function sentence(text) {
  return `${text.charAt(0).toUpperCase()}${text.slice(1).replace(/\.$/, "")}.`;
}
