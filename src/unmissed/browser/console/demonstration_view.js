/** "Show me": the button, and the chart of both clients. */

import { axisEnd, Bars } from "./bars.js";
import { AWAY_MS, Demonstration } from "./demonstration.js";
import { create, element, setText } from "./elements.js";
import { count, messages } from "./format.js";
import { mayPublishTests } from "./question.js";

/** @typedef {import("./api.js").Api} Api */
/** @typedef {import("./tally.js").Fate} Fate */
/** @typedef {import("./tally.js").Name} Name */

const NAMES = /** @type {const} */ (["plain", "unmissed"]);
const TITLES = { plain: "Plain WebSocket", unmissed: "Unmissed" };
const FATES = /** @type {const} */ (["live", "recovered", "missed", "lost"]);
const MOST_RATE = 50;
const COLUMN_MS = 500;
const COLUMNS = 30;
const LEAST_SCALE = 4;
const RENDER_MS = 250;
const AWAY_SECONDS = AWAY_MS / 1000;

/** @type {Record<import("./demonstration.js").Phase | "ready", string>} */
const TEXTS = {
  ready:
    `In 15 seconds: messages are published, a plain WebSocket and an Unmissed client lose their connections for ` +
    `${AWAY_SECONDS} seconds, and every message is counted.`,
  connecting: "Opening a plain WebSocket, and beside it an Unmissed client.",
  together: "Both receive every message as it is published.",
  away: `Both connections are gone for ${AWAY_SECONDS} seconds. Messages go on.`,
  back: "Both are connected again. Unmissed has asked for everything after its last number.",
  done: `Both were away for ${AWAY_SECONDS} seconds. The connections of this demonstration are closed again.`,
  stopped: "Stopped. The connections of this demonstration are closed.",
  failed: "This did not work.",
};

export class DemonstrationView {
  #parts;
  #root = element("demonstration", HTMLElement);
  #button = element("show-me", HTMLButtonElement);
  #lanes = { plain: new Lane("plain"), unmissed: new Lane("unmissed") };
  /** @type {Demonstration | undefined} */
  #demonstration;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;

  /** @param {{base: string, token: string, api: Api, retained: () => number}} parts `retained`: how many messages the log retains */
  constructor(parts) {
    this.#parts = parts;
    this.#button.addEventListener("click", () => this.#pressed());
    this.#explain();
  }

  async #pressed() {
    if (this.#demonstration?.running) return this.#demonstration.stop();
    if (!(await mayPublishTests())) return;
    const demonstration = new Demonstration({ ...this.#parts, rate: this.#rate });
    this.#demonstration = demonstration;
    demonstration.addEventListener("phase", () => this.#explain());
    this.#timer = setInterval(() => this.#draw(demonstration), RENDER_MS);
    this.#explain();
    await demonstration.run();
    clearInterval(this.#timer);
    this.#draw(demonstration);
  }

  /** Half of a log must be enough for what is published while both are away. */
  get #rate() {
    return Math.max(1, Math.min(MOST_RATE, Math.floor(this.#parts.retained() / 2 / AWAY_SECONDS)));
  }

  #explain() {
    const phase = this.#demonstration?.phase ?? "ready";
    this.#root.dataset.phase = phase;
    element("race", HTMLElement).hidden = phase === "ready";
    this.#button.classList.toggle("next", !this.#demonstration?.running);
    setText(element("show-me-label", HTMLElement), label(phase, this.#demonstration?.running));
    const failure = phase === "failed" ? ` ${this.#demonstration?.failure}` : "";
    setText(element("demonstration-text", HTMLElement), TEXTS[phase] + failure);
    element("demonstration-result", HTMLElement).replaceChildren(...(phase === "done" ? this.#result() : []));
  }

  #result() {
    const { tally, announced } = /** @type {Demonstration} */ (this.#demonstration);
    const [plain, unmissed] = NAMES.map((name) => tally.score(name));
    const verdict = NAMES.map((name) => `${TITLES[name]}: ${count(tally.score(name).lost)} lost`).join(". ");
    const how = `Of ${messages(tally.published)}, the plain WebSocket received ${count(plain.received)}, and Unmissed ${count(unmissed.received)}`;
    const recovered = `${count(unmissed.recovered)} of them recovered`;
    const twice = unmissed.duplicates === 0 ? "none twice" : `${count(unmissed.duplicates)} twice`;
    const gap = announced ? " The log was too small for the pause, and the server has said so with a gap." : "";
    return [create("strong", "", `${verdict}.`), ` ${how}: ${recovered}, ${twice}.${gap}`];
  }

  /** @param {Demonstration} demonstration */
  #draw({ tally }) {
    const columns = NAMES.map((name) => tally.columns(name, { length: COLUMNS, milliseconds: COLUMN_MS }));
    const most = axisEnd(Math.max(...columns.flat().map(total)), LEAST_SCALE);
    NAMES.forEach((name, index) => this.#lanes[name].show(columns[index], { most, lost: tally.score(name).lost }));
  }
}

/** The bars of one client, and how many messages it has lost. */
class Lane {
  #title;
  #chart;
  #bars;
  #lost;

  /** @param {Name} name */
  constructor(name) {
    this.#title = TITLES[name];
    this.#chart = element(`race-${name}`, SVGSVGElement);
    this.#bars = new Bars(this.#chart, FATES);
    this.#lost = element(`race-${name}-lost`, HTMLElement);
  }

  /** @param {Record<Fate, number>[]} columns @param {{most: number, lost: number}} facts */
  show(columns, { most, lost }) {
    this.#bars.show(
      columns.map((counts, index) => [index, counts]),
      most,
    );
    setText(this.#lost, count(lost));
    this.#lost.parentElement?.classList.toggle("bad", lost > 0);
    this.#chart.setAttribute("aria-label", `${this.#title}: ${describe(columns)}`);
  }
}

/** @param {string} phase @param {boolean | undefined} running */
function label(phase, running) {
  if (running) return "Stop";
  return phase === "ready" ? "Show me" : "Show me again";
}

/** @param {Record<Fate, number>} counts */
function total(counts) {
  return FATES.reduce((before, fate) => before + counts[fate], 0);
}

/** @param {Record<Fate, number>[]} columns */
function describe(columns) {
  return FATES.map((fate) => `${fate} ${count(columns.reduce((before, counts) => before + counts[fate], 0))}`).join(
    ", ",
  );
}
