/** A chart of the last minute: what was published in each second, and what became of it. */

import { axisEnd, Bars } from "./bars.js";
import { element, setText } from "./elements.js";
import { count } from "./format.js";
import { sum } from "./seconds.js";

const FILL_MS = 1_000;
/** From the bottom to the top of a bar. */
const OUTCOMES = /** @type {const} */ (["live", "recovered", "missed", "lost"]);
const LEAST_SCALE = 6;

/** @typedef {import("./seconds.js").Second} Second */

export class Timeline {
  #chart = element("timeline", SVGSVGElement);
  #peak = element("peak", HTMLElement);
  #bars = new Bars(this.#chart, OUTCOMES);

  /** Animate the next changes, which fill the bars of what was missed. */
  fill() {
    this.#chart.classList.add("filling");
    setTimeout(() => this.#chart.classList.remove("filling"), FILL_MS);
  }

  /** Show these seconds, oldest first. @param {[number, Second][]} seconds */
  show(seconds) {
    const most = axisEnd(Math.max(...seconds.map(([, second]) => sum(second))), LEAST_SCALE);
    this.#bars.show(seconds, most);
    setText(this.#peak, count(most));
    this.#chart.setAttribute("aria-label", describe(seconds));
  }
}

/** @param {[number, Second][]} seconds */
function describe(seconds) {
  const totals = OUTCOMES.map((outcome) => {
    const total = seconds.reduce((before, [, second]) => before + second[outcome], 0);
    return `${outcome} ${count(total)}`;
  });
  return `Messages of the last minute by the second in which they were published: ${totals.join(", ")}.`;
}
