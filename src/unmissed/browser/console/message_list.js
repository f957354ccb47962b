/** The list of messages, newest first. It holds still after a recovery, and while it is scrolled down. */

import { create, element, setText } from "./elements.js";
import { count, time } from "./format.js";
import { noteWords } from "./words.js";

/** @typedef {import("./receiver.js").Message} Message */
/** @typedef {import("./receiver.js").Note} Note */

/** More than a recovery of the whole default log, so that the row of a gap before it remains. */
const MOST_ROWS = 600;
const HOLD_MS = 6_000;
const DATA_LENGTH = 300;
const LAST_DIGITS = 4;

export class MessageList {
  #list = element("messages", HTMLOListElement);
  #scroll = element("messages-scroll", HTMLElement);
  #empty = element("messages-empty", HTMLElement);
  #steps = element("steps", HTMLElement);
  #held = element("held", HTMLElement);
  #heldText = element("held-text", HTMLElement);
  #hold = element("hold", HTMLButtonElement);
  /** What creates the rows that are not in the list yet, oldest first. @type {(() => HTMLLIElement)[]} */
  #waiting = [];
  #holdUntil = 0;
  #hidden = 0;
  #holding = false;
  #holdSoon = false;

  constructor() {
    element("release", HTMLButtonElement).addEventListener("click", () => this.release());
    this.#hold.addEventListener("click", () => this.#toggle());
  }

  /** @param {Message} message */
  add(message) {
    this.#push(() => messageRow(message));
  }

  /** @param {Note} note */
  note(note) {
    const at = Date.now();
    this.#push(() => noteRow(note, at));
    if (note.recovered) this.#holdSoon = true;
  }

  /** Show what is new, unless the list holds still. */
  render() {
    const now = Date.now();
    this.#hold.setAttribute("aria-pressed", String(this.#holding));
    if (this.#isHeld(now)) return this.#showHeld(now);
    this.#insert();
    if (this.#holdSoon) this.#holdUntil = now + HOLD_MS;
    this.#holdSoon = false;
    this.#held.hidden = true;
  }

  /** Go on. */
  release() {
    this.#holdUntil = 0;
    this.#holding = false;
    this.#scroll.scrollTop = 0;
    this.render();
  }

  #toggle() {
    if (this.#isHeld(Date.now())) this.release();
    else this.#holding = true;
    this.render();
  }

  /** @param {number} now */
  #isHeld(now) {
    return this.#holding || now < this.#holdUntil || this.#scroll.scrollTop > 8;
  }

  /** @param {number} now */
  #showHeld(now) {
    const left = Math.ceil((this.#holdUntil - now) / 1000);
    const newer = this.#hidden + this.#waiting.length;
    const why = this.#holding || left <= 0 ? "Holding still" : `Holding still for ${left} s to show what was recovered`;
    setText(this.#heldText, newer > 0 ? `${why}. ${count(newer)} newer.` : `${why}.`);
    this.#held.hidden = false;
  }

  /** @param {() => HTMLLIElement} createRow */
  #push(createRow) {
    this.#waiting.push(createRow);
    if (this.#waiting.length > MOST_ROWS) {
      this.#waiting.shift();
      this.#hidden++;
    }
  }

  #insert() {
    if (this.#waiting.length === 0) return;
    this.#list.prepend(...this.#waiting.reverse().map((createRow) => createRow()));
    while (this.#list.childElementCount > MOST_ROWS) this.#list.lastElementChild?.remove();
    [this.#waiting, this.#hidden] = [[], 0];
    this.#empty.hidden = this.#steps.hidden = true;
  }
}

/** @param {Message} message */
function messageRow({ sequence_number: number, timestamp, type, data, recovered }) {
  const row = create("li", recovered ? "message recovered" : "message", numberCell(number));
  const at = create("time", "", time(timestamp));
  at.dateTime = timestamp;
  row.append(at, create("span", "type", type), create("code", "data", shown(data)));
  if (recovered) row.append(create("span", "mark", "recovered"));
  return row;
}

/** The last digits are those that change. Ephemeral messages have no number. @param {number | undefined} number */
function numberCell(number) {
  if (number === undefined) return create("span", "number", "ephemeral");
  const digits = String(number);
  return create("span", "number", create("span", "head", digits.slice(0, -LAST_DIGITS)), digits.slice(-LAST_DIGITS));
}

/** @param {unknown} data */
function shown(data) {
  const text = data === undefined ? "" : JSON.stringify(data);
  return text.length > DATA_LENGTH ? `${text.slice(0, DATA_LENGTH)}…` : text;
}

/** @param {Note} note @param {number} at */
function noteRow(note, at) {
  const bad = note.lost || !["dropped", "back"].includes(note.kind);
  return create(
    "li",
    `note ${bad ? "bad" : note.kind}`,
    create("time", "", time(at)),
    create("span", "", noteWords(note)),
  );
}
