/** The view of the topics that clients follow. */

import { create, element, name, setText } from "./elements.js";
import { Feed } from "./feed.js";
import { Filters } from "./filters.js";
import { count } from "./format.js";
import { totalWords } from "./operator_words.js";
import { cell, Rows, showEmpty } from "./table.js";

/** @typedef {import("./api.js").Api} Api */
/** @typedef {{topic: string, connections: number, most: number}} TopicItem */

const MOST_ROWS = 200;

export class TopicsView {
  #feed;
  #root = element("topics-view", HTMLElement);
  #rows = new Rows(element("topics-rows", HTMLElement), (/** @type {TopicItem} */ item) => new TopicRow(item.topic));
  #filters = new Filters(element("topics-filters", HTMLFormElement), {
    view: "topics",
    changed: () => this.#feed.refresh(),
  });

  /** @param {Api} api */
  constructor(api) {
    this.#feed = new Feed(this.#root, {
      ask: () => api.topics({ ...this.#filters.values, limit: MOST_ROWS }),
      show: (topics) => this.#show(topics),
    });
  }

  /** @param {URLSearchParams} parameters */
  start(parameters) {
    this.#filters.take(parameters);
    this.#feed.start();
  }

  stop() {
    this.#feed.stop();
  }

  /** @param {import("./api.js").Topics} topics */
  #show({ topics, total, matching }) {
    const words = totalWords(matching, total);
    setText(
      element("topics-total", HTMLElement),
      topics.length < matching ? `${words}, the ${count(topics.length)} largest` : words,
    );
    const nothing = total === 0 ? "Nobody follows a topic." : "No topic matches.";
    showEmpty(this.#root, topics.length === 0 ? nothing : "");
    const most = Math.max(1, ...topics.map((each) => each.connections));
    this.#rows.show(
      topics.map((each) => ({ ...each, most })),
      (each) => each.topic,
    );
  }
}

class TopicRow {
  element = create("tr", "");
  #connections = cell("Connections", "figure");
  #meter = create("meter", "");

  /** @param {string} topic */
  constructor(topic) {
    const link = create("a", "", name(topic));
    link.href = `#connections?${new URLSearchParams({ topic })}`;
    const title = create("th", "topic", link);
    title.scope = "row";
    const share = cell("", "share");
    share.append(this.#meter);
    this.#meter.setAttribute("aria-hidden", "true");
    this.element.append(title, this.#connections, share);
  }

  /** @param {TopicItem} item */
  show({ connections, most }) {
    setText(this.#connections, count(connections));
    this.#meter.max = most;
    this.#meter.value = connections;
  }
}
