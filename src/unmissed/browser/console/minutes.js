/** The minutes of the last hour, also those in which nothing happened. */

/** @typedef {import("./api.js").Kind} Kind */
/** @typedef {import("./api.js").Minute} Minute */

export const HISTORY_MINUTES = 60;
const MINUTE_MS = 60_000;

/**
 * Return the last minutes, oldest first, each with its number since 1970 and its counts.
 *
 * The clock of the server may be ahead: then its newest minute is the last one.
 * @param {Minute[]} minutes @param {number} now in milliseconds
 * @returns {[number, Record<Kind, number>][]}
 */
export function lastMinutes(minutes, now) {
  const found = new Map(minutes.map((minute) => [numberOf(Date.parse(minute.time)), minute]));
  const end = Math.max(numberOf(now), ...found.keys());
  return Array.from({ length: HISTORY_MINUTES }, (_, index) => {
    const number = end - HISTORY_MINUTES + 1 + index;
    return [number, counts(found.get(number))];
  });
}

/** Return the sums of all minutes. @param {Minute[]} minutes @returns {Record<Kind, number>} */
export function totals(minutes) {
  const sums = counts(undefined);
  for (const [kind, number] of minutes.flatMap((minute) => Object.entries(counts(minute)))) {
    sums[/** @type {Kind} */ (kind)] += number;
  }
  return sums;
}

/** @param {Partial<Minute> | undefined} minute @returns {Record<Kind, number>} */
function counts({ gap = 0, reset = 0, stall = 0, close = 0, refused = 0 } = {}) {
  return { gap, reset, stall, close, refused };
}

/** @param {number} milliseconds */
function numberOf(milliseconds) {
  return Math.floor(milliseconds / MINUTE_MS);
}
