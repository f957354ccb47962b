/** The view of the log: the retained messages of all users, filtered, and each with its JSON. */

import { create, element, name, setText } from "./elements.js";
import { bytes, count, messages as messagesWords, moment, time } from "./format.js";
import { audienceWords } from "./operator_words.js";
import { PagedList } from "./paged_list.js";
import { cell, openingRow, Rows, showEmpty } from "./table.js";

/** @typedef {import("./api.js").Api} Api */
/** @typedef {import("./api.js").LogMessage} LogMessage */
/** @typedef {import("./inspector.js").Inspector} Inspector */

const PAGE_SIZE = 50;
const PREVIEW_LENGTH = 200;
/** What every message has. The preview shows the rest. */
const STAMPED = ["type", "sequence_number", "timestamp", "topics"];

export class LogBrowser {
  #api;
  #inspector;
  #list;
  #root = element("log-view", HTMLElement);
  #rows = new Rows(
    element("log-rows", HTMLElement),
    (/** @type {LogMessage} */ message) => new MessageRow(message, () => this.#inspect(message)),
  );

  /** @param {Api} api @param {{inspector: Inspector}} parts */
  constructor(api, { inspector }) {
    this.#api = api;
    this.#inspector = inspector;
    this.#list = new PagedList(this.#root, element("log-filters", HTMLFormElement), {
      view: "log",
      ask: (filters, before) => this.#api.log({ ...filters, limit: PAGE_SIZE, before }),
      show: (page) => this.#show(page),
    });
  }

  /** @param {URLSearchParams} parameters */
  start(parameters) {
    this.#list.start(parameters);
  }

  stop() {
    this.#list.stop();
  }

  /** @param {import("./api.js").LogPage} page */
  #show({ messages, examined, next, oldest, latest }) {
    const retained = messagesWords(latest - oldest + 1);
    const found = `${count(messages.length)} of ${messagesWords(examined)} on this page`;
    setText(element("log-total", HTMLElement), this.#list.isFiltered ? found : retained);
    showEmpty(this.#root, messages.length === 0 ? this.#nothing(examined, next) : "");
    this.#rows.show(messages, (each) => String(each.message.sequence_number));
  }

  /** @param {number} examined @param {number | null} next */
  #nothing(examined, next) {
    if (!this.#list.isFiltered) return "The log is empty.";
    return next === null ? "No message matches." : `None of ${messagesWords(examined)} matches. Older ones may.`;
  }

  /** @param {LogMessage} entry */
  #inspect({ message, everyone, topics, users, bytes: size }) {
    this.#inspector.show({
      title: name(message.type),
      facts: [
        ["Number", create("code", "", String(message.sequence_number))],
        ["Published", `${moment(message.timestamp)} (${message.timestamp})`],
        ["For", name(audienceWords({ everyone, topics, users }))],
        ["Size", bytes(size)],
      ],
      json: message,
    });
  }
}

class MessageRow {
  element;

  /** @param {LogMessage} entry @param {() => void} open */
  constructor(entry, open) {
    const { message } = entry;
    const number = create("button", "link code", String(message.sequence_number));
    number.type = "button";
    number.addEventListener("click", open);
    const title = create("th", "number", number);
    title.scope = "row";
    const at = cell("Time", "code");
    const published = create("time", "", time(message.timestamp));
    published.dateTime = message.timestamp;
    at.append(published);
    this.element = openingRow(open);
    this.element.append(
      title,
      at,
      named("Type", "type", message.type),
      named("For", "names", audienceWords(entry)),
      named("Data", "preview code", preview(message)),
    );
  }

  /** A message never changes. */
  show() {}
}

/** @param {string} label @param {string} className @param {string} text */
function named(label, className, text) {
  const created = cell(label, className);
  created.append(name(text));
  return created;
}

/** @param {import("./api.js").Message} message */
function preview(message) {
  const rest = Object.entries(message).filter(([key]) => !STAMPED.includes(key));
  const { data, ...others } = Object.fromEntries(rest);
  const shown = Object.keys(others).length === 0 ? data : { ...(data === undefined ? {} : { data }), ...others };
  const text = shown === undefined ? "" : JSON.stringify(shown);
  return text.length > PREVIEW_LENGTH ? `${text.slice(0, PREVIEW_LENGTH)}…` : text;
}
