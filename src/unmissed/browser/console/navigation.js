/** The views of the page: one is shown, and the fragment of the address names it, such as `#connections?topic=rooms.1`. */

import { element } from "./elements.js";

/** @typedef {{start: (parameters: URLSearchParams) => void, stop: () => void}} View */

const FIRST = "recovery";

export class Navigation {
  #views;
  #links = [...element("navigation", HTMLElement).querySelectorAll("a")];
  /** @type {string | undefined} */
  #shown;

  /** @param {Record<string, View>} views by the names that follow # in the address */
  constructor(views) {
    this.#views = views;
    element("navigation", HTMLElement).hidden = false;
    addEventListener("hashchange", () => this.#follow());
    this.#show(linked());
  }

  #follow() {
    this.#show(linked());
    scrollTo(0, 0);
    // Screen readers continue at the focus: it follows into the new view.
    /** @type {HTMLElement | null} */
    const title = viewElement(this.#shown ?? FIRST).querySelector("h2[tabindex]");
    title?.focus({ preventScroll: true });
  }

  /** @param {{name: string, parameters: URLSearchParams}} link */
  #show({ name, parameters }) {
    const known = name in this.#views ? name : FIRST;
    if (this.#shown !== undefined) this.#views[this.#shown].stop();
    this.#shown = known;
    for (const each of Object.keys(this.#views)) viewElement(each).hidden = each !== known;
    for (const link of this.#links) mark(link, link.hash === `#${known}`);
    this.#views[known].start(parameters);
  }
}

/** @param {HTMLAnchorElement} link @param {boolean} current */
function mark(link, current) {
  if (current) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

function linked() {
  const [name, query] = location.hash.slice(1).split("?");
  return { name, parameters: new URLSearchParams(query) };
}

/** @param {string} name @returns {HTMLElement} */
function viewElement(name) {
  return /** @type {HTMLElement} */ (document.querySelector(`[data-view="${name}"]`));
}
