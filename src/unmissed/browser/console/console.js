/** The console: one connection, and the views of the page. */

import { ConnectionsView } from "./connections_view.js";
import { HistoryView } from "./history_view.js";
import { Inspector } from "./inspector.js";
import { LogBrowser } from "./log_browser.js";
import { Navigation } from "./navigation.js";
import { Playground } from "./playground.js";
import { PublishView } from "./publish_view.js";
import { Receiver } from "./receiver.js";
import { ServerView } from "./server_view.js";
import { TopicsView } from "./topics_view.js";

/** Dispatches `ended` with the reason why the server does not accept this page. */
export class Console extends EventTarget {
  /** @param {string} base the server's address @param {string} token */
  constructor(base, token) {
    super();
    const receiver = new Receiver(base, token);
    receiver.addEventListener("ended", (event) => {
      this.dispatchEvent(new CustomEvent("ended", { detail: /** @type {CustomEvent} */ (event).detail }));
    });
    const { api } = receiver;
    const playground = new Playground(receiver, token);
    const inspector = new Inspector();
    new Navigation({
      recovery: playground,
      connections: new ConnectionsView(api, { inspector, ids: () => playground.ids }),
      topics: new TopicsView(api),
      log: new LogBrowser(api, { inspector }),
      publish: new PublishView(api),
      history: new HistoryView(api, { inspector }),
      server: new ServerView(api),
    });
  }
}
