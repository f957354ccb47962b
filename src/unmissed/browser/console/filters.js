/** The filters of a view. They are in the address of the page, so that a reload and a link keep them. */

const TYPING_MS = 250;

export class Filters {
  #form;
  #view;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {HTMLFormElement} form @param {{view: string, changed: () => void}} facts the name of the view in the address */
  constructor(form, { view, changed }) {
    this.#form = form;
    this.#view = view;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#keep(changed), TYPING_MS);
    });
  }

  /** The values by the names of the fields. @returns {Record<string, string>} */
  get values() {
    return Object.fromEntries(this.#fields.map((field) => [field.name, field.value.trim()]));
  }

  get active() {
    return this.#fields.some((field) => field instanceof HTMLInputElement && field.value.trim() !== "");
  }

  /** Take the filters of a link. @param {URLSearchParams} parameters */
  take(parameters) {
    clearTimeout(this.#timer);
    this.#form.reset();
    for (const field of this.#fields) field.value = parameters.get(field.name) ?? field.value;
  }

  get #fields() {
    return [...this.#form.elements].filter(
      (each) => each instanceof HTMLInputElement || each instanceof HTMLSelectElement,
    );
  }

  /** @param {() => void} changed */
  #keep(changed) {
    const given = Object.entries(this.values).filter(([, value]) => value !== "");
    history.replaceState(null, "", `#${this.#view}?${new URLSearchParams(given)}`);
    changed();
  }
}
