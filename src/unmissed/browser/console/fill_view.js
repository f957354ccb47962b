/** Shows how full the log is, and how far back it reaches. */

import { element, setText } from "./elements.js";
import { bytes, count, duration } from "./format.js";
import { reachWords } from "./words.js";

/** @typedef {import("./log_figures.js").LogFigures} LogFigures */

/** @param {LogFigures} figures */
export function showFill(figures) {
  const { log } = figures;
  if (log === null) return;
  showMeter("log-messages", { value: counted(log), most: log.max_messages, format: count });
  showMeter("log-bytes", { value: log.bytes, most: log.max_bytes, format: bytes });
  setText(element("log-reach", HTMLElement), `reaches ${duration(figures.reach)} back`);
  setText(element("forecast", HTMLElement), reachWords(figures));
}

/**
 * Return how many messages count for the limit: those without a rule that are no values.
 * @param {import("./log_figures.js").Log} log
 */
function counted(log) {
  return log.rules[0].messages - log.rules[0].values;
}

/** @param {string} id @param {{value: number, most: number, format: (number: number) => string}} figure */
function showMeter(id, { value, most, format }) {
  const meter = element(id, HTMLMeterElement);
  meter.max = most;
  meter.value = value;
  setText(element(`${id}-text`, HTMLElement), `${format(value)} of ${format(most)}`);
}
