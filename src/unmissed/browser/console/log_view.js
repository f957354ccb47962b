/** How full the log is, and how far back it reaches. */

import { element, setText } from "./elements.js";
import { bytes, count, duration } from "./format.js";
import { reachWords } from "./words.js";

/** @typedef {import("./server.js").Server} Server */

export class LogView {
  #panel = element("log", HTMLElement);
  #refusal = element("log-refusal", HTMLElement);
  #forecast = element("forecast", HTMLElement);
  #reach = element("log-reach", HTMLElement);

  /** @param {Server} server */
  show(server) {
    const { log, refusal } = server;
    setText(this.#refusal, refusal);
    this.#panel.hidden = log === null;
    if (log === null) return;
    showMeter("log-messages", log.messages, log.max_messages, count);
    showMeter("log-bytes", log.bytes, log.max_bytes, bytes);
    setText(this.#reach, `reaches ${duration(server.reach)} back`);
    setText(this.#forecast, reachWords(server));
  }
}

/**
 * @param {string} id @param {number} value @param {number} most @param {(number: number) => string} format
 */
function showMeter(id, value, most, format) {
  const meter = element(id, HTMLMeterElement);
  meter.max = most;
  meter.value = value;
  setText(element(`${id}-text`, HTMLElement), `${format(value)} of ${format(most)}`);
}
