/** The view of the last hour: gaps, resets, stalls, closed connections, and refusals. */

import { axisEnd, Bars } from "./bars.js";
import { create, element, name, setText } from "./elements.js";
import { Feed } from "./feed.js";
import { clock, count, moment } from "./format.js";
import { HISTORY_MINUTES, lastMinutes, totals } from "./minutes.js";
import { codeWords, entryWords, KIND_TITLES, reasonWords } from "./operator_words.js";
import { cell, openingRow, Rows, showEmpty } from "./table.js";

/** @typedef {import("./api.js").Api} Api */
/** @typedef {import("./api.js").Entry} Entry */
/** @typedef {import("./api.js").Kind} Kind */
/** @typedef {import("./api.js").Past} Past */
/** @typedef {import("./inspector.js").Inspector} Inspector */

const MOST_ROWS = 200;
const LEAST_SCALE = 4;
/** From the bottom to the top of a bar. */
const KINDS = /** @type {const} */ (["close", "refused", "stall", "reset", "gap"]);
const ALL = "";

export class HistoryView {
  #inspector;
  #feed;
  #root = element("history-view", HTMLElement);
  #chart = element("history-chart", SVGSVGElement);
  #bars = new Bars(this.#chart, KINDS);
  #codes = element("history-codes", HTMLElement);
  #rows = new Rows(
    element("history-rows", HTMLElement),
    (/** @type {Entry} */ entry) => new EntryRow(entry, () => this.#inspect(entry)),
  );
  /** @type {Kind | ""} */
  #kind = ALL;
  /** @type {Map<Kind | "", HTMLButtonElement>} */
  #buttons = new Map();

  /** @param {Api} api @param {{inspector: Inspector}} parts */
  constructor(api, { inspector }) {
    this.#inspector = inspector;
    this.#feed = new Feed(this.#root, {
      ask: () => api.history({ kind: this.#kind, limit: MOST_ROWS }),
      show: (past) => this.#show(past),
    });
    for (const kind of [ALL, ...[...KINDS].reverse()]) this.#addButton(/** @type {Kind | ""} */ (kind));
  }

  start() {
    this.#feed.start();
  }

  stop() {
    this.#feed.stop();
  }

  /** @param {Kind | ""} kind */
  #addButton(kind) {
    const button = create("button", `small ${kind}`);
    button.type = "button";
    button.addEventListener("click", () => this.#choose(kind));
    element("history-kinds", HTMLElement).append(create("li", "", button));
    this.#buttons.set(kind, button);
  }

  /** @param {Kind | ""} kind */
  #choose(kind) {
    this.#kind = kind;
    this.#markChosen();
    this.#feed.refresh();
  }

  #markChosen() {
    for (const [kind, button] of this.#buttons) button.setAttribute("aria-pressed", String(kind === this.#kind));
  }

  /** @param {Past} past */
  #show({ entries, minutes, closes, since }) {
    const sums = totals(minutes);
    const all = KINDS.reduce((before, kind) => before + sums[kind], 0);
    this.#markChosen();
    for (const [kind, button] of this.#buttons) {
      setText(button, kind === ALL ? `All ${count(all)}` : `${KIND_TITLES[kind]} ${count(sums[kind])}`);
    }
    setText(element("history-total", HTMLElement), `since ${clock(since)}`);
    this.#showChart(lastMinutes(minutes, Date.now()), sums);
    this.#showCodes(closes);
    showEmpty(this.#root, entries.length === 0 ? nothing(this.#kind) : "");
    this.#rows.show(entries, keyOf);
  }

  /** @param {[number, Record<Kind, number>][]} columns @param {Record<Kind, number>} sums */
  #showChart(columns, sums) {
    const shown = columns.map(([minute, counts]) => [
      minute,
      this.#kind === ALL ? counts : { [this.#kind]: counts[this.#kind] },
    ]);
    const heights = shown.map(([, counts]) => Object.values(counts).reduce((before, each) => before + each, 0));
    const most = axisEnd(Math.max(...heights), LEAST_SCALE);
    this.#bars.show(/** @type {[number, Record<string, number>][]} */ (shown), most);
    setText(element("history-peak", HTMLElement), count(most));
    const words = KINDS.map((kind) => `${KIND_TITLES[kind]} ${count(sums[kind])}`).join(", ");
    this.#chart.setAttribute("aria-label", `Events in each of the last ${HISTORY_MINUTES} minutes: ${words}.`);
  }

  /** @param {Record<string, number>} closes */
  #showCodes(closes) {
    const sorted = Object.entries(closes).sort(([, one], [, other]) => other - one);
    this.#codes.hidden = sorted.length === 0 || !["", "close"].includes(this.#kind);
    this.#codes.replaceChildren(
      ...sorted.map(([code, number]) =>
        create("li", "", create("b", "", count(number)), create("code", "", code), codeWords(code)),
      ),
    );
  }

  /** @param {Entry} entry */
  #inspect(entry) {
    const { kind, time, user_id, connection_id, client, code } = entry;
    this.#inspector.show({
      title: entryWords(entry),
      facts: [
        ["Time", moment(time)],
        ["What", KIND_TITLES[kind]],
        ["User", user_id === null ? "unknown" : name(user_id)],
        ["Connection", connection_id ?? "none"],
        ["Address", client ?? "unknown"],
        ["Code", code === null ? "none" : `${code} ${codeWords(code)}`],
        ["Reason", name(reasonWords(entry) || "none")],
      ],
      json: entry,
    });
  }
}

class EntryRow {
  element;
  #what = cell("What");
  #at = create("button", "link code");

  /** @param {Entry} entry @param {() => void} open */
  constructor(entry, open) {
    const { kind, user_id, code } = entry;
    this.#at.type = "button";
    this.#at.addEventListener("click", open);
    const title = create("th", "", this.#at);
    title.scope = "row";
    const user = cell("User", "user");
    user.append(name(user_id ?? entry.client ?? "unknown"));
    const number = cell("Code", "figure code");
    setText(number, code === null ? "" : String(code));
    number.title = codeWords(code);
    const why = cell("Reason", "reason");
    why.append(name(reasonWords(entry)));
    this.element = openingRow(open);
    this.element.classList.add(kind);
    this.element.append(title, this.#what, user, number, why);
  }

  /** @param {Entry} entry */
  show(entry) {
    setText(this.#at, clock(entry.time));
    setText(this.#what, entryWords(entry));
  }
}

/** What is refused again is the same row, with a higher number. @param {Entry} entry */
function keyOf({ time, kind, connection_id, code, reason, request, client, count: times }) {
  const fixed = times > 1 ? "" : time;
  return JSON.stringify([fixed, kind, connection_id, code, reason, request, client]);
}

/** @param {Kind | ""} kind */
function nothing(kind) {
  return kind === ALL
    ? "Nothing happened in the last hour: no gap, no reset, no stall, no closed connection."
    : "None in the last hour.";
}
