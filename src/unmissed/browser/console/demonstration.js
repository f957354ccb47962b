/** Drops a plain WebSocket and an Unmissed client at the same moment, and counts what each of them loses. */

import { connect } from "../client.js";
import { PlainClient } from "./plain_client.js";
import { Tally } from "./tally.js";
import { Traffic } from "./traffic.js";

/** @typedef {import("./api.js").Api} Api */
/** @typedef {import("./api.js").Message & {recovered: boolean}} Message */
/** @typedef {"connecting" | "together" | "away" | "back" | "done" | "stopped" | "failed"} Phase */

export const AWAY_MS = 5_000;
const TOGETHER_MS = 4_000;
const BACK_MS = 4_000;
/** The longest that connecting, and what comes last, may take. */
const CONNECT_MS = 15_000;
const SETTLE_MS = 5_000;
const LOOK_MS = 50;

/** Dispatches `phase`. It runs once. */
export class Demonstration extends EventTarget {
  /** @type {Phase} */
  phase = "connecting";
  tally = new Tally();
  /** Why it has failed. */
  failure = "";
  /** Whether the server has announced that messages are lost for the Unmissed client. */
  announced = false;

  #rate;
  #traffic;
  #plain;
  #stream;
  #abort = new AbortController();

  /** @param {{base: string, token: string, api: Api, rate: number}} parts */
  constructor({ base, token, api, rate }) {
    super();
    this.#rate = rate;
    this.#traffic = new Traffic(api);
    this.#plain = new PlainClient(base, token);
    this.#stream = connect(base, { token });
    this.#listen();
  }

  get running() {
    return !["done", "stopped", "failed"].includes(this.phase);
  }

  /** Run from the first connection to the result. */
  async run() {
    try {
      await this.#untilConnected();
      this.#traffic.set(this.#rate);
      await this.#pause("together", TOGETHER_MS);
      this.#plain.drop(AWAY_MS);
      this.#stream.drop(AWAY_MS);
      await this.#pause("away", AWAY_MS);
      await this.#untilConnected();
      await this.#pause("back", BACK_MS);
      await this.#settle();
      this.#end("done");
    } catch (error) {
      this.failure ||= error instanceof Error ? error.message : String(error);
      this.#end(this.#abort.signal.reason === "stopped" ? "stopped" : "failed");
    }
  }

  stop() {
    this.#abort.abort("stopped");
  }

  #listen() {
    const { tally } = this;
    listen(this.#plain, "connected", (number) => tally.pass("plain", number));
    listen(this.#plain, "message", ({ sequence_number: number }) => tally.receive("plain", number, "live"));
    this.#stream.on("*", (/** @type {Message} */ { sequence_number: number, recovered }) =>
      tally.receive("unmissed", number, recovered ? "recovered" : "live"),
    );
    listen(this.#stream, "gap", ({ to }) => this.#lose(to));
    listen(this.#stream, "reset", () => this.#lose(tally.latest));
    listen(this.#stream, "refused", ({ reason }) => this.#fail(`The server refused the connection: ${reason}`));
    listen(this.#traffic, "published", (stamps) => tally.publish(stamps));
    listen(this.#traffic, "failure", (error) => this.#fail(`Publishing failed: ${error.message}`));
  }

  /** @param {number} number */
  #lose(number) {
    this.announced = true;
    this.tally.pass("unmissed", number);
  }

  /** @param {string} text */
  #fail(text) {
    this.failure = text;
    this.#abort.abort("failed");
  }

  async #untilConnected() {
    const connected = await this.#until(() => this.#plain.connected && this.#stream.status === "live", CONNECT_MS);
    if (connected) return;
    const blocked = this.#stream.status === "live" ? "The plain WebSocket" : "The connection";
    throw new Error(`${blocked} could not be opened within ${CONNECT_MS / 1000} seconds.`);
  }

  /** Publish no more, and wait until what is under way has arrived. What is still missing then is lost. */
  async #settle() {
    this.#traffic.set(0);
    await this.#until(() => this.#traffic.pending === 0 && this.tally.isComplete("unmissed"), SETTLE_MS);
    for (const name of /** @type {const} */ (["plain", "unmissed"])) this.tally.pass(name, this.tally.latest);
  }

  /** @param {Phase} phase @param {number} milliseconds */
  async #pause(phase, milliseconds) {
    this.#become(phase);
    await this.#until(() => false, milliseconds);
  }

  /** Wait for a condition, and return whether it came true in time. @param {() => boolean} condition @param {number} milliseconds */
  async #until(condition, milliseconds) {
    for (const end = performance.now() + milliseconds; performance.now() < end;) {
      this.#abort.signal.throwIfAborted();
      if (condition()) return true;
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
    return false;
  }

  /** Leave nothing behind. @param {Phase} phase */
  #end(phase) {
    this.#traffic.set(0);
    this.#plain.close();
    this.#stream.close();
    this.#become(phase);
  }

  /** @param {Phase} phase */
  #become(phase) {
    this.phase = phase;
    this.dispatchEvent(new CustomEvent("phase"));
  }
}

/** @param {EventTarget} target @param {string} type @param {(detail: any) => void} handler */
function listen(target, type, handler) {
  target.addEventListener(type, (event) => handler(/** @type {CustomEvent} */ (event).detail));
}
