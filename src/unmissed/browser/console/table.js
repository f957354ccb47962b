/** Rows of a table that are kept while their content changes, cells, and turning pages. */

import { create, setText } from "./elements.js";

/**
 * @template T
 * @typedef {{element: HTMLTableRowElement, show: (item: T) => void}} Row
 */

/** The rows of one table body. They are kept, so that the focus and a selection stay. @template T */
export class Rows {
  #body;
  #create;
  /** @type {Map<string, Row<T>>} */
  #rows = new Map();

  /** @param {HTMLElement} body @param {(item: T) => Row<T>} createRow */
  constructor(body, createRow) {
    this.#body = body;
    this.#create = createRow;
  }

  /** Show these items in this order. @param {T[]} items @param {(item: T) => string} keyOf */
  show(items, keyOf) {
    const keys = new Set(items.map(keyOf));
    for (const [key, row] of this.#rows) if (!keys.has(key)) this.#remove(key, row);
    const focused = document.activeElement;
    items.forEach((item, index) => this.#place(this.#row(keyOf(item), item), index));
    // A row that moves loses the focus.
    if (focused instanceof HTMLElement && focused !== document.activeElement && focused.isConnected) focused.focus();
  }

  /** @param {string} key @param {T} item */
  #row(key, item) {
    const row = this.#rows.get(key) ?? this.#create(item);
    this.#rows.set(key, row);
    row.show(item);
    return row;
  }

  /** @param {Row<T>} row @param {number} index */
  #place({ element }, index) {
    const present = this.#body.children[index] ?? null;
    if (present !== element) this.#body.insertBefore(element, present);
  }

  /** @param {string} key @param {Row<T>} row */
  #remove(key, { element }) {
    element.remove();
    this.#rows.delete(key);
  }
}

/**
 * Return a row that opens its details, by the button in its first cell or by a click anywhere.
 * @param {() => void} open
 */
export function openingRow(open) {
  const row = create("tr", "opening");
  row.addEventListener("click", (event) => {
    const onControl = event.target instanceof Element && event.target.closest("a, button") !== null;
    const selects = String(getSelection()) !== "";
    if (!onControl && !selects) open();
  });
  return row;
}

/**
 * Return a cell. Where a narrow page shows rows as cards, the label is shown beside it.
 * @param {string} label @param {string} [className]
 */
export function cell(label, className = "") {
  const created = create("td", className);
  created.dataset.label = label;
  return created;
}

/** Show a text in place of a table without rows, or the table for an empty text. @param {HTMLElement} view @param {string} text */
export function showEmpty(view, text) {
  const [table, empty] = [".table", ".empty"].map((part) => /** @type {HTMLElement} */ (view.querySelector(part)));
  table.hidden = text !== "";
  empty.hidden = text === "";
  setText(empty, text);
}

/** The buttons that turn pages. A page is known by the value of `next` in the answer before it. */
export class Pages {
  #root;
  #previous;
  #following;
  /** The beginnings of this page and of those before it. @type {(string | number)[]} */
  #beginnings = [""];
  /** @type {string | number | null} */
  #next = null;

  /** @param {HTMLElement} view has the buttons `previous` and `following` @param {() => void} turned */
  constructor(view, turned) {
    this.#root = /** @type {HTMLElement} */ (view.querySelector(".paging"));
    this.#previous = /** @type {HTMLButtonElement} */ (this.#root.querySelector(".previous"));
    this.#following = /** @type {HTMLButtonElement} */ (this.#root.querySelector(".following"));
    this.#previous.addEventListener("click", () => {
      if (this.#beginnings.length === 1) return;
      this.#beginnings.pop();
      turned();
    });
    this.#following.addEventListener("click", () => {
      if (this.#next === null) return;
      this.#beginnings.push(this.#next);
      // Until the answer is here, another click would turn to the same page.
      this.#next = null;
      turned();
    });
  }

  /** What to ask for: empty for the first page. */
  get beginning() {
    return this.#beginnings[this.#beginnings.length - 1];
  }

  /** Begin again, for example with other filters. */
  reset() {
    this.#beginnings = [""];
  }

  /** @param {string | number | null} next */
  show(next) {
    this.#next = next;
    const isFirst = this.#beginnings.length === 1;
    this.#root.hidden = isFirst && next === null;
    // They are not disabled, because a disabled button loses the focus.
    this.#previous.setAttribute("aria-disabled", String(isFirst));
    this.#following.setAttribute("aria-disabled", String(next === null));
  }
}
