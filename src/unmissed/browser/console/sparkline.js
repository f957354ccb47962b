/** A small line of the last values of one connection. */

import { createSvg } from "./elements.js";

/** How many values a line has. */
export const SAMPLES = 60;

const HEIGHT = 20;

/** Return a line of these values, newest at the right, on a scale from 0 to `most`. @param {number[]} values @param {number} most */
export function sparkline(values, most) {
  const start = SAMPLES - values.length;
  const points = values.map((value, index) => `${start + index},${HEIGHT - 1 - (value / most) * (HEIGHT - 2)}`);
  const chart = createSvg("svg", {
    class: "sparkline",
    viewBox: `0 0 ${SAMPLES} ${HEIGHT}`,
    preserveAspectRatio: "none",
    "aria-hidden": "true",
  });
  chart.append(
    createSvg("path", { d: `M0 ${HEIGHT - 1}H${SAMPLES}` }),
    createSvg("polyline", { points: points.join(" ") }),
  );
  return chart;
}
