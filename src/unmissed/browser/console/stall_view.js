/** What the stalled reader shows. */

import { element, setText } from "./elements.js";
import { count, messages } from "./format.js";

/** @typedef {import("./stalled_reader.js").StalledReader} StalledReader */

export class StallView {
  #panel = element("stall-panel", HTMLElement);
  #text = element("stall-text", HTMLElement);

  /** @param {StalledReader} reader */
  show(reader) {
    this.#panel.hidden = reader.state === "off";
    setText(this.#text, words(reader));
  }
}

/** @param {StalledReader} reader */
function words({ state, lag, received, gap }) {
  switch (state) {
    case "stalled":
      return `This page has opened a second connection, an event stream, and does not read it. ${behind(lag)}`;
    case "reading":
      return "The second connection reads on.";
    case "caught up":
      return `The second connection has caught up: it received ${messages(received)}${loss(gap)}.`;
    case "disconnected":
      return "The server has ended the second connection, because it took nothing. A client would reconnect and recover.";
    default:
      return "";
  }
}

/** @param {number} lag */
function behind(lag) {
  if (lag === 0) return "The buffers on the way take the first megabytes.";
  return `It is ${messages(lag)} behind. All others go on, and so does this page.`;
}

/** @param {[number, number] | null} gap */
function loss(gap) {
  return gap ? `, and a gap reported that up to ${count(gap[1] - gap[0] + 1)} are lost` : ", and none is lost";
}
