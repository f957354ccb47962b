/** A chart of the last minute: what was published in each second, and what became of it. */

import { createSvg, element, setText } from "./elements.js";
import { count } from "./format.js";
import { sum } from "./seconds.js";

const HEIGHT = 100;
const GAP = 0.25;
const FILL_MS = 1_000;
/** From the bottom to the top of a bar. */
const OUTCOMES = /** @type {const} */ (["live", "recovered", "missed", "lost"]);
/** The ends of the axis, times a power of ten: few of them, so that the chart does not change its scale all the time. */
const SCALES = [1, 2, 3, 4, 6, 8, 10];
const LEAST_SCALE = 6;

/** @typedef {import("./seconds.js").Second} Second */

export class Timeline {
  #chart = element("timeline", SVGSVGElement);
  #peak = element("peak", HTMLElement);
  /** @type {Map<number, Record<string, SVGRectElement>>} */
  #bars = new Map();

  /** Animate the next changes, which fill the bars of what was missed. */
  fill() {
    this.#chart.classList.add("filling");
    setTimeout(() => this.#chart.classList.remove("filling"), FILL_MS);
  }

  /** Show these seconds, oldest first. @param {[number, Second][]} seconds */
  show(seconds) {
    const peak = scale(Math.max(...seconds.map(([, second]) => sum(second))));
    this.#removeBefore(seconds[0][0]);
    seconds.forEach(([number, second], index) => this.#draw(this.#bar(number), second, index, HEIGHT / peak));
    setText(this.#peak, count(peak));
    this.#chart.setAttribute("aria-label", describe(seconds));
  }

  /** @param {Record<string, SVGRectElement>} bar @param {Second} second @param {number} x @param {number} scale */
  #draw(bar, second, x, scale) {
    let top = HEIGHT;
    for (const outcome of OUTCOMES) {
      const height = second[outcome] * scale;
      top -= height;
      bar[outcome].setAttribute("x", String(x + GAP / 2));
      // As styles and not as attributes, so that the style sheet can animate them.
      bar[outcome].style.y = `${top}px`;
      bar[outcome].style.height = `${height}px`;
    }
  }

  /** @param {number} number */
  #bar(number) {
    let bar = this.#bars.get(number);
    if (!bar) {
      bar = Object.fromEntries(OUTCOMES.map((outcome) => [outcome, createSvg("rect", { class: outcome, width: 1 - GAP })]));
      this.#chart.append(...Object.values(bar));
      this.#bars.set(number, bar);
    }
    return bar;
  }

  /** @param {number} first */
  #removeBefore(first) {
    for (const [number, bar] of this.#bars) {
      if (number >= first) continue;
      Object.values(bar).forEach((rect) => rect.remove());
      this.#bars.delete(number);
    }
  }
}

/** Return the end of the axis for a highest bar. @param {number} highest */
function scale(highest) {
  const power = 10 ** Math.floor(Math.log10(Math.max(LEAST_SCALE, highest)));
  return Math.max(LEAST_SCALE, power * /** @type {number} */ (SCALES.find((each) => each * power >= highest)));
}

/** @param {[number, Second][]} seconds */
function describe(seconds) {
  const totals = OUTCOMES.map((outcome) => `${outcome} ${count(seconds.reduce((total, [, second]) => total + second[outcome], 0))}`);
  return `Messages of the last minute by the second in which they were published: ${totals.join(", ")}.`;
}
