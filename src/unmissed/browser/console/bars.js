/** Stacked bars in an SVG whose viewBox is as wide as the number of columns, and 100 high. */

import { createSvg } from "./elements.js";

const HEIGHT = 100;
const GAP = 0.25;
/** The ends of the axis, times a power of ten: few of them, so that the chart does not change its scale all the time. */
const SCALES = [1, 2, 3, 4, 6, 8, 10];

export class Bars {
  #chart;
  #kinds;
  /** Kept by the number of the column, so that the style sheet can animate a change. @type {Map<number, Record<string, SVGRectElement>>} */
  #bars = new Map();

  /** @param {SVGSVGElement} chart @param {readonly string[]} kinds from the bottom to the top of a bar */
  constructor(chart, kinds) {
    this.#chart = chart;
    this.#kinds = kinds;
  }

  /**
   * Show these columns, each with its number and its counts by kind.
   * @param {[number, Record<string, number>][]} columns @param {number} most what reaches the top
   */
  show(columns, most) {
    const numbers = new Set(columns.map(([number]) => number));
    for (const number of this.#bars.keys()) if (!numbers.has(number)) this.#remove(number);
    columns.forEach(([number, counts], x) => this.#draw(this.#bar(number), { counts, x, scale: HEIGHT / most }));
  }

  /** @param {Record<string, SVGRectElement>} bar @param {{counts: Record<string, number>, x: number, scale: number}} facts */
  #draw(bar, { counts, x, scale }) {
    let top = HEIGHT;
    for (const kind of this.#kinds) {
      const height = (counts[kind] ?? 0) * scale;
      top -= height;
      bar[kind].setAttribute("x", String(x + GAP / 2));
      // As styles and not as attributes, so that the style sheet can animate them.
      bar[kind].style.y = `${top}px`;
      bar[kind].style.height = `${height}px`;
    }
  }

  /** @param {number} number */
  #bar(number) {
    let bar = this.#bars.get(number);
    if (!bar) {
      bar = Object.fromEntries(this.#kinds.map((kind) => [kind, createSvg("rect", { class: kind, width: 1 - GAP })]));
      this.#chart.append(...Object.values(bar));
      this.#bars.set(number, bar);
    }
    return bar;
  }

  /** @param {number} number */
  #remove(number) {
    for (const rect of Object.values(this.#bars.get(number) ?? {})) rect.remove();
    this.#bars.delete(number);
  }
}

/** Return the end of the axis for a highest bar. @param {number} highest @param {number} least */
export function axisEnd(highest, least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(least, highest)));
  return Math.max(least, power * /** @type {number} */ (SCALES.find((each) => each * power >= highest)));
}
