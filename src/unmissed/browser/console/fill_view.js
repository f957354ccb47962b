/** Shows how full the log is, and how far back it reaches. */

import { element, setText } from "./elements.js";
import { bytes, count, duration } from "./format.js";
import { reachWords } from "./words.js";

/** @typedef {import("./log_figures.js").LogFigures} LogFigures */

/** @param {LogFigures} figures */
export function showFill(figures) {
  const { log } = figures;
  if (log === null) return;
  showMeter("log-messages", { value: log.messages, most: log.max_messages, format: count });
  showMeter("log-bytes", { value: log.bytes, most: log.max_bytes, format: bytes });
  setText(element("log-reach", HTMLElement), `reaches ${duration(figures.reach)} back`);
  setText(element("forecast", HTMLElement), reachWords(figures));
}

/** @param {string} id @param {{value: number, most: number, format: (number: number) => string}} figure */
function showMeter(id, { value, most, format }) {
  const meter = element(id, HTMLMeterElement);
  meter.max = most;
  meter.value = value;
  setText(element(`${id}-text`, HTMLElement), `${format(value)} of ${format(most)}`);
}
