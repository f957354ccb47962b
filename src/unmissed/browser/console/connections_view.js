/** The table of connections. */

import { create, element, setText } from "./elements.js";
import { count, duration } from "./format.js";
import { sparkline } from "./sparkline.js";

/** @typedef {import("./server.js").Server} Server */
/** @typedef {import("./api.js").Connection} Connection */

const LEAST_SCALE = 10;

/** Dispatches `disconnect` with the id of a connection, and `page`. */
export class ConnectionsView extends EventTarget {
  #body = element("connections", HTMLTableSectionElement);
  #refusal = element("connections-refusal", HTMLElement);
  #table = element("connections-table", HTMLElement);
  #paging = element("paging", HTMLElement);
  #previous = element("previous", HTMLButtonElement);
  #next = element("next", HTMLButtonElement);
  /** Rows are kept, so that the focus stays on a button while its row changes. @type {Map<string, Row>} */
  #rows = new Map();

  constructor() {
    super();
    this.#previous.addEventListener("click", () => this.#tell("page", "previous"));
    this.#next.addEventListener("click", () => this.#tell("page", "next"));
  }

  /** @param {Server} server @param {{own?: string, stalled?: string}} ids */
  show(server, ids) {
    setText(this.#refusal, server.refusal || (server.connections.length === 0 ? "Nobody is connected." : ""));
    this.#table.hidden = server.connections.length === 0;
    const most = Math.max(LEAST_SCALE, ...server.connections.flatMap((each) => server.lags(each.connection_id)));
    this.#removeOthers(server.connections);
    for (const connection of server.connections) this.#row(connection).show(connection, { server, most, ids });
    this.#paging.hidden = !server.hasNext && !server.hasPrevious;
    this.#previous.disabled = !server.hasPrevious;
    this.#next.disabled = !server.hasNext;
  }

  /** @param {Connection} connection */
  #row({ connection_id: id }) {
    let row = this.#rows.get(id);
    if (!row) {
      row = new Row(id, () => this.#tell("disconnect", id));
      this.#rows.set(id, row);
      this.#body.append(row.element);
    }
    return row;
  }

  /** @param {Connection[]} connections */
  #removeOthers(connections) {
    const ids = new Set(connections.map((each) => each.connection_id));
    for (const [id, row] of this.#rows) {
      if (ids.has(id)) continue;
      row.element.remove();
      this.#rows.delete(id);
    }
  }

  /** @param {string} type @param {unknown} detail */
  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

class Row {
  element = create("tr", "");
  #name = create("th", "id");
  #user = create("td", "user");
  #transport = create("td", "transport");
  #topics = create("td", "topics");
  #age = create("td", "figure age");
  #lag = create("td", "figure lag");

  /** @param {string} id @param {() => void} disconnect */
  constructor(id, disconnect) {
    this.#name.scope = "row";
    const button = create("button", "small", "Disconnect");
    button.setAttribute("aria-label", `Disconnect ${id}`);
    button.addEventListener("click", disconnect);
    this.element.append(this.#name, this.#user, this.#transport, this.#topics, this.#age, this.#lag, create("td", "", button));
  }

  /** @param {Connection} connection @param {{server: Server, most: number, ids: {own?: string, stalled?: string}}} facts */
  show({ connection_id: id, user_id, transport, topics, connected_at, lag }, { server, most, ids }) {
    const mark = id === ids.own ? "this page" : id === ids.stalled ? "stalled reader" : "";
    this.#name.replaceChildren(shortId(id), ...(mark ? [create("span", "badge", mark)] : []));
    this.#name.title = id;
    setText(this.#user, user_id);
    setText(this.#transport, transport);
    setText(this.#topics, topics.length === 0 ? "none" : topics.join(", "));
    this.#topics.title = topics.join(", ");
    setText(this.#age, duration((Date.now() - Date.parse(connected_at)) / 1000));
    this.#lag.replaceChildren(sparkline(server.lags(id), most), create("span", "", count(lag)));
    this.element.classList.toggle("behind", lag > 0);
  }
}

/** Without the node, which is the first part. @param {string} id */
function shortId(id) {
  return id.slice(id.indexOf(".") + 1);
}
