/** The view of the connections: searched, sorted, and closed. */

import { create, element, name, setText, visible } from "./elements.js";
import { age, count, moment } from "./format.js";
import { totalWords } from "./operator_words.js";
import { PagedList } from "./paged_list.js";
import { ask } from "./question.js";
import { SAMPLES, sparkline } from "./sparkline.js";
import { cell, openingRow, Rows, showEmpty } from "./table.js";

/** @typedef {import("./api.js").Api} Api */
/** @typedef {import("./api.js").Connection} Connection */
/** @typedef {import("./inspector.js").Inspector} Inspector */
/** @typedef {{own?: string, stalled?: string}} Ids */

const PAGE_SIZE = 50;
const LEAST_SCALE = 10;
const TOPICS_IN_ROW = 3;

export class ConnectionsView {
  #api;
  #inspector;
  #ids;
  #list;
  #root = element("connections-view", HTMLElement);
  #rows = new Rows(
    element("connections-rows", HTMLElement),
    (/** @type {Connection} */ connection) =>
      new ConnectionRow(this.#lags, () => this.#inspect(connection.connection_id)),
  );
  #lags = new Lags();
  /** @type {Connection[]} */
  #shown = [];

  /** @param {Api} api @param {{inspector: Inspector, ids: () => Ids}} parts `ids`: the connections of this page */
  constructor(api, { inspector, ids }) {
    this.#api = api;
    this.#inspector = inspector;
    this.#ids = ids;
    this.#list = new PagedList(this.#root, element("connections-filters", HTMLFormElement), {
      view: "connections",
      ask: (filters, after) => this.#ask(filters, after),
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

  /** @param {Record<string, string>} filters @param {string | number} after */
  #ask({ sort: chosen, ...filters }, after) {
    const [sort, order] = chosen.split(" ");
    return this.#api.connections({ ...filters, sort, order, limit: PAGE_SIZE, after });
  }

  /** @param {import("./api.js").ConnectionsPage} page */
  #show({ connections, total, matching }) {
    this.#shown = connections;
    this.#lags.take(connections);
    setText(element("connections-total", HTMLElement), totalWords(matching, total));
    const nothing = total === 0 ? "Nobody is connected." : "No connection matches.";
    showEmpty(this.#root, connections.length === 0 ? nothing : "");
    const ids = this.#ids();
    this.#rows.show(connections, (each) => each.connection_id);
    for (const row of this.#root.querySelectorAll("tr.opening")) markOwn(row, ids);
  }

  /** @param {string} id */
  #inspect(id) {
    const connection = this.#shown.find((each) => each.connection_id === id);
    if (!connection) return;
    this.#inspector.show({
      title: name(connection.user_id),
      facts: facts(connection),
      json: connection,
      actions: [
        { label: "Disconnect", run: () => this.#disconnect(connection) },
        { label: "Refuse its token", run: () => this.#refuse(connection), danger: true },
        { label: "Log out the user", run: () => this.#logOut(connection), danger: true },
      ],
    });
  }

  /** @param {Connection} connection */
  async #disconnect({ user_id: user, connection_id: id }) {
    return this.#confirmed(
      {
        title: "Disconnect this client?",
        text: `The client of ${isolated(user)} reconnects by itself, and recovers what it has missed.`,
        yes: "Disconnect",
      },
      () => this.#api.disconnect(id),
    );
  }

  /** @param {Connection} connection */
  async #refuse({ user_id: user, connection_id: id }) {
    return this.#confirmed(
      {
        title: "Refuse the token of this connection?",
        text: `The connection of ${isolated(user)} is closed with 4401, and needs a new token to come back.`,
        yes: "Refuse its token",
      },
      () => this.#api.refuseToken(id),
    );
  }

  /** @param {Connection} connection */
  async #logOut({ user_id: user }) {
    return this.#confirmed(
      {
        title: "Log this user out?",
        text: `All connections of ${isolated(user)} are closed with 4401, and all tokens that were issued until now are refused.`,
        yes: "Log out",
      },
      () => this.#api.logOut(user),
    );
  }

  /** @param {import("./question.js").Question} question @param {() => Promise<unknown>} act */
  async #confirmed(question, act) {
    if (!(await ask(question))) return false;
    await act();
    this.#list.refresh();
    return true;
  }
}

/** The last lags of the connections that are shown. */
class Lags {
  /** What reaches the top of the lines. */
  most = LEAST_SCALE;
  /** @type {Map<string, number[]>} */
  #lags = new Map();

  /** @param {Connection[]} connections */
  take(connections) {
    const before = this.#lags;
    this.#lags = new Map(
      connections.map(({ connection_id: id, lag }) => [id, [...(before.get(id) ?? []), lag].slice(-SAMPLES)]),
    );
    this.most = Math.max(LEAST_SCALE, ...[...this.#lags.values()].flat());
  }

  /** Oldest first. @param {string} id */
  of(id) {
    return this.#lags.get(id) ?? [];
  }
}

class ConnectionRow {
  element;
  #lags;
  #user = create("button", "link");
  #address = cell("Address", "code");
  #topics = cell("Topics", "names");
  #transport = cell("Transport");
  #position = cell("Position", "figure code");
  #connected = cell("Connected", "figure");
  #lag = cell("Lag", "figure lag");

  /** @param {Lags} lags @param {() => void} open */
  constructor(lags, open) {
    this.#lags = lags;
    this.#user.type = "button";
    this.#user.addEventListener("click", open);
    const user = create("th", "user", this.#user, create("span", "badge"));
    user.scope = "row";
    this.element = openingRow(open);
    this.element.append(user, this.#address, this.#topics, this.#transport, this.#position, this.#connected, this.#lag);
  }

  /** @param {Connection} connection */
  show({ connection_id: id, user_id, client, topics, total_topics, transport, position, connected_at, lag }) {
    this.element.dataset.connection = id;
    if (this.#user.textContent !== user_id) this.#user.replaceChildren(name(user_id));
    setText(this.#address, client ?? "unknown");
    const words = topicWords(topics, total_topics);
    if (this.#topics.textContent !== words) this.#topics.replaceChildren(name(words));
    setText(this.#transport, transport);
    setText(this.#position, String(position));
    setText(this.#connected, age(connected_at));
    this.#lag.replaceChildren(sparkline(this.#lags.of(id), this.#lags.most), create("span", "", count(lag)));
    this.element.classList.toggle("behind", lag > 0);
  }
}

/** @param {string[]} topics @param {number} total */
function topicWords(topics, total) {
  if (total === 0) return "none";
  const more = total - TOPICS_IN_ROW;
  return topics.slice(0, TOPICS_IN_ROW).join(", ") + (more > 0 ? ` and ${count(more)} more` : "");
}

/** @param {Element} row @param {Ids} ids */
function markOwn(row, { own, stalled }) {
  const id = row instanceof HTMLElement ? row.dataset.connection : undefined;
  const mark = { [String(stalled)]: "stalled reader", [String(own)]: "this page" }[String(id)] ?? "";
  const badge = row.querySelector(".badge");
  if (badge) setText(badge, mark);
}

/** @param {Connection} connection @returns {import("./inspector.js").Fact[]} */
function facts({ connection_id, user_id, client, transport, topics, total_topics, position, lag, connected_at }) {
  const more = total_topics - topics.length;
  return [
    ["User", name(user_id)],
    ["Connection", create("code", "", connection_id)],
    ["Address", client ?? "unknown"],
    ["Transport", transport],
    ["Connected", `${moment(connected_at)} (${age(connected_at)} ago)`],
    ["Position", `${position}, ${lag === 0 ? "up to date" : `${count(lag)} behind`}`],
    ["Topics", total_topics === 0 ? "none" : topics.join(", ") + (more > 0 ? `, and ${count(more)} more` : "")],
  ];
}

/** A name in a sentence, with its direction of writing kept inside by the isolates of Unicode. @param {string} text */
function isolated(text) {
  return `\u2068${visible(text)}\u2069`;
}
