/** The console: connects, and shows what happens. */

import { Refused } from "./api.js";
import { CodeView } from "./code_view.js";
import { ConnectionsView } from "./connections_view.js";
import { Controls } from "./controls.js";
import { LogView } from "./log_view.js";
import { MessageList } from "./message_list.js";
import { Server } from "./server.js";
import { Receiver } from "./receiver.js";
import { StallView } from "./stall_view.js";
import { StalledReader } from "./stalled_reader.js";
import { StateView } from "./state_view.js";
import { Timeline } from "./timeline.js";
import { Traffic } from "./traffic.js";
import { noteWords } from "./words.js";

const RENDER_MS = 250;
const POLL_MS = 2_000;
const POLL_OFTEN_MS = 500;
const TIMELINE_SECONDS = 60;
const FLOW_RATE = 50;
/** While the connection is down and nothing else is published, so that there is something to miss. */
const AWAY_RATE = 5;
/** The buffers between the server and the page hold megabytes: small messages would take minutes to fill them. */
const STALL_BYTES = 32_768;

/** Dispatches `ended` with the reason why the server does not accept this page. */
export class Console extends EventTarget {
  #receiver;
  #server;
  #traffic;
  #reader;
  #code;
  #state = new StateView();
  #controls = new Controls();
  #timeline = new Timeline();
  #list = new MessageList();
  #log = new LogView();
  #connections = new ConnectionsView();
  #stall = new StallView();
  #flowing = false;
  #dropped = false;

  /** @param {string} base the server's address @param {string} token */
  constructor(base, token) {
    super();
    this.#receiver = new Receiver(base, token);
    this.#server = new Server(this.#receiver.api);
    this.#traffic = new Traffic(this.#receiver.api);
    this.#reader = new StalledReader(this.#receiver.api);
    this.#code = new CodeView({ base, position: 0, seconds: 5, text: "Hello", connectionId: "" }, token);
    this.#listenToReceiver();
    this.#listenToControls();
    setInterval(() => this.#render(), RENDER_MS);
    this.#poll();
  }

  #listenToReceiver() {
    listen(this.#receiver, "message", (message) => this.#list.add(message));
    listen(this.#receiver, "note", (note) => this.#note(note));
    listen(this.#receiver, "status", () => this.#statusChanged());
    listen(this.#receiver, "ended", (reason) => this.dispatchEvent(new CustomEvent("ended", { detail: reason })));
    listen(this.#traffic, "failure", (error) => this.#stopPublishing(error));
  }

  #listenToControls() {
    listen(this.#controls, "publish", (text) => this.#publish(text));
    listen(this.#controls, "flow", () => this.#toggleFlow());
    listen(this.#controls, "drop", (seconds) => this.#drop(seconds));
    listen(this.#controls, "stall", () => this.#toggleStall());
    listen(this.#connections, "disconnect", (id) => this.#disconnect(id));
    listen(this.#connections, "page", (direction) => this.#turnPage(direction));
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

  /** @param {string} id */
  async #disconnect(id) {
    this.#code.show("disconnect", { connectionId: id });
    try {
      await this.#receiver.api.disconnect(id);
    } catch (error) {
      this.#fail("Disconnecting failed", error);
    }
    this.#poll();
  }

  /** @param {"next" | "previous"} direction */
  #turnPage(direction) {
    if (direction === "next") this.#server.nextPage();
    else this.#server.previousPage();
    this.#poll();
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
      await Promise.allSettled([this.#server.poll(), this.#receiver.check(), this.#reader.look()]);
      this.#adjustTraffic();
      this.#log.show(this.#server);
      this.#connections.show(this.#server, {
        own: this.#receiver.stream.connectionId,
        stalled: this.#reader.connectionId,
      });
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
