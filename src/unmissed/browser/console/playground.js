/** The view "Recovery": publishes, drops and stalls on request, and shows what happens to the messages. */

import { Refused } from "./api.js";
import { CodeView } from "./code_view.js";
import { Controls } from "./controls.js";
import { DemonstrationView } from "./demonstration_view.js";
import { element } from "./elements.js";
import { Feed } from "./feed.js";
import { showFill } from "./fill_view.js";
import { LogFigures } from "./log_figures.js";
import { MessageList } from "./message_list.js";
import { StallView } from "./stall_view.js";
import { StalledReader } from "./stalled_reader.js";
import { StateView } from "./state_view.js";
import { Timeline } from "./timeline.js";
import { Traffic } from "./traffic.js";
import { noteWords } from "./words.js";

/** @typedef {import("./receiver.js").Receiver} Receiver */

const RENDER_MS = 250;
const POLL_MS = 2_000;
const POLL_OFTEN_MS = 500;
const TIMELINE_SECONDS = 60;
const FLOW_RATE = 50;
/** While the connection is down and nothing else is published, so that there is something to miss. */
const AWAY_RATE = 5;
/** The buffers between the server and the page hold megabytes: small messages would take minutes to fill them. */
const STALL_BYTES = 32_768;

export class Playground {
  #receiver;
  #feed;
  #traffic;
  #reader;
  #code;
  #figures = new LogFigures();
  #state = new StateView();
  #controls = new Controls();
  #timeline = new Timeline();
  #list = new MessageList();
  #stall = new StallView();
  #flowing = false;
  #dropped = false;

  /** @param {Receiver} receiver @param {string} token */
  constructor(receiver, token) {
    const { base, api } = receiver;
    this.#receiver = receiver;
    this.#feed = new Feed(element("fill", HTMLElement), {
      ask: () => api.status(),
      show: (status) => this.#showFill(status),
    });
    this.#traffic = new Traffic(api);
    this.#reader = new StalledReader(api);
    this.#code = new CodeView({ base, position: 0, seconds: 5, text: "Hello" }, token);
    new DemonstrationView({ base, token, api, retained: () => this.#figures.log?.max_messages ?? Infinity });
    this.#listenToReceiver();
    this.#listenToControls();
    setInterval(() => this.#render(), RENDER_MS);
    this.#poll();
  }

  /** The ids of the connections of this page. */
  get ids() {
    return { own: this.#receiver.stream.connectionId, stalled: this.#reader.connectionId };
  }

  start() {
    this.#feed.start();
  }

  stop() {
    this.#feed.stop();
  }

  #listenToReceiver() {
    listen(this.#receiver, "message", (message) => this.#list.add(message));
    listen(this.#receiver, "note", (note) => this.#note(note));
    listen(this.#receiver, "status", () => this.#statusChanged());
    listen(this.#traffic, "failure", (error) => this.#stopPublishing(error));
  }

  #listenToControls() {
    listen(this.#controls, "publish", (text) => this.#publish(text));
    listen(this.#controls, "flow", () => this.#toggleFlow());
    listen(this.#controls, "drop", (seconds) => this.#drop(seconds));
    listen(this.#controls, "stall", () => this.#toggleStall());
  }

  // What happens to the stream

  /** @param {import("./receiver.js").Note} note */
  #note(note) {
    if (note.recovered) this.#timeline.fill();
    this.#list.note(note);
    this.#state.announce(noteWords(note));
  }

  #statusChanged() {
    if (this.#receiver.status === "live") {
      this.#dropped = false;
      this.#controls.explain("");
    }
    this.#adjustTraffic();
    this.#render();
    this.#poll();
  }

  // What the buttons do

  /** @param {string} text */
  async #publish(text) {
    this.#code.show("publish", { text });
    try {
      await this.#receiver.api.publish([{ type: "note", data: { text } }]);
      this.#controls.explain("");
    } catch (error) {
      this.#fail("Publishing failed", error);
    }
  }

  #toggleFlow() {
    this.#flowing = !this.#flowing;
    this.#code.show("flow", {});
    this.#adjustTraffic();
    this.#render();
  }

  /** @param {number} seconds */
  #drop(seconds) {
    this.#dropped = true;
    this.#code.show("drop", { seconds, position: this.#receiver.stream.position ?? 0 });
    this.#receiver.stream.drop(seconds * 1000);
    this.#adjustTraffic();
  }

  async #toggleStall() {
    if (this.#reader.state === "stalled") return this.#readOn();
    if (this.#reader.state === "reading") return;
    this.#code.show("stall", {});
    try {
      await this.#reader.stall();
    } catch (error) {
      this.#fail("The second connection failed", error);
    }
    this.#adjustTraffic();
    this.#poll();
  }

  async #readOn() {
    const reading = this.#reader.resume(this.#receiver.stream.position ?? 0);
    this.#adjustTraffic();
    this.#render();
    await reading;
    this.#render();
  }

  #adjustTraffic() {
    if (this.#reader.state === "stalled") this.#traffic.set(FLOW_RATE, STALL_BYTES);
    else if (this.#flowing) this.#traffic.set(FLOW_RATE);
    else this.#traffic.set(this.#dropped ? AWAY_RATE : 0);
  }

  /** @param {unknown} error */
  #stopPublishing(error) {
    if (error instanceof Refused && error.status < 500) [this.#flowing, this.#dropped] = [false, false];
    this.#adjustTraffic();
    this.#fail("Publishing failed", error);
  }

  /** @param {string} what @param {unknown} error */
  #fail(what, error) {
    this.#controls.explain(`${what}: ${error instanceof Error ? error.message : error}`);
  }

  // What is shown

  /** @param {import("./api.js").Status} status */
  #showFill(status) {
    this.#figures.take(status);
    showFill(this.#figures);
  }

  #render() {
    const { status, ledger, seconds } = this.#receiver;
    this.#state.show(this.#receiver);
    this.#timeline.show(seconds.last(TIMELINE_SECONDS, ledger.missing()));
    this.#controls.show({ status, flowing: this.#flowing, stalled: this.#reader.running });
    this.#stall.show(this.#reader);
    this.#list.render();
  }

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** Ask the server now, and then again and again. A hidden page does not ask. */
  async #poll() {
    if (this.#receiver.status === "closed") return;
    if (!document.hidden) {
      await Promise.allSettled([this.#receiver.check(), this.#reader.look()]);
      this.#adjustTraffic();
    }
    const often = this.#receiver.awaySince !== null || this.#reader.running;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#poll(), often ? POLL_OFTEN_MS : POLL_MS);
  }
}

/** @param {EventTarget} target @param {string} type @param {(detail: any) => void} handler */
function listen(target, type, handler) {
  target.addEventListener(type, (event) => handler(/** @type {CustomEvent} */ (event).detail));
}
