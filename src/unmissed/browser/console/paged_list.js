/** A list of the server that is filtered and read page by page: its filters, its pages, and the feed that keeps it fresh. */

import { Feed } from "./feed.js";
import { Filters } from "./filters.js";
import { Pages } from "./table.js";

/** @template {{next: string | number | null}} Page */
export class PagedList {
  #filters;
  #pages;
  #feed;

  /**
   * @param {HTMLElement} root has the buttons that turn pages
   * @param {HTMLFormElement} form
   * @param {{
   *   view: string,
   *   ask: (filters: Record<string, string>, beginning: string | number) => Promise<Page>,
   *   show: (page: Page) => void,
   * }} list
   */
  constructor(root, form, { view, ask, show }) {
    this.#filters = new Filters(form, { view, changed: () => this.#restart() });
    this.#pages = new Pages(root, () => this.#feed.refresh());
    this.#feed = new Feed(root, {
      ask: () => ask(this.#filters.values, this.#pages.beginning),
      show: (/** @type {Page} */ page) => {
        show(page);
        this.#pages.show(page.next);
      },
    });
  }

  /** Whether a filter leaves something out. */
  get isFiltered() {
    return this.#filters.active;
  }

  /** @param {URLSearchParams} parameters */
  start(parameters) {
    this.#filters.take(parameters);
    this.#pages.reset();
    this.#feed.start();
  }

  stop() {
    this.#feed.stop();
  }

  refresh() {
    this.#feed.refresh();
  }

  #restart() {
    this.#pages.reset();
    this.#feed.refresh();
  }
}
