/** The filters of a view. They are in the address of the page, so that a reload and a link keep them. */

const TYPING_MS = 250;

export class Filters {
  /** The values by the names of the fields. They change when typing has paused. @type {Record<string, string>} */
  values;
  #form;
  #view;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {HTMLFormElement} form @param {{view: string, changed: () => void}} facts the name of the view in the address */
  constructor(form, { view, changed }) {
    this.#form = form;
    this.#view = view;
    this.values = this.#typed;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#keep(changed), TYPING_MS);
    });
  }

  /** Whether anything is filtered. An order filters nothing. */
  get active() {
    return this.#fields.some((field) => field instanceof HTMLInputElement && this.values[field.name] !== "");
  }

  /** Take the filters of a link. @param {URLSearchParams} parameters */
  take(parameters) {
    clearTimeout(this.#timer);
    this.#form.reset();
    for (const field of this.#fields) setValue(field, parameters.get(field.name));
    this.values = this.#typed;
  }

  get #fields() {
    return [...this.#form.elements].filter(
      (each) => each instanceof HTMLInputElement || each instanceof HTMLSelectElement,
    );
  }

  get #typed() {
    return Object.fromEntries(this.#fields.map((field) => [field.name, field.value.trim()]));
  }

  /** @param {() => void} changed */
  #keep(changed) {
    this.values = this.#typed;
    const given = Object.entries(this.values).filter(([, value]) => value !== "");
    history.replaceState(null, "", `#${this.#view}?${new URLSearchParams(given)}`);
    changed();
  }
}

/** Set what a link gives, and leave an order as it is that does not exist. @param {HTMLInputElement | HTMLSelectElement} field @param {string | null} value */
function setValue(field, value) {
  const before = field.value;
  if (value !== null) field.value = value;
  if (field instanceof HTMLSelectElement && field.selectedIndex === -1) field.value = before;
}
