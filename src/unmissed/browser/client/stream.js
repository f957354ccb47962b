/**
 * The face of the client: what an application holds, and what each frame of the server does to it.
 *
 * @import { Frame, Message, Options, Status } from "../types.js"
 * @import { Link, Source } from "./link.js"
 */

import { Connections } from "./connections.js";
import { placeAfter, topicsAfter } from "./decisions.js";
import { messagesOf } from "./loop.js";
import { PositionStore } from "./position_store.js";
import { Requests } from "./requests.js";
import { settingsOf } from "./settings.js";
import { TabGroup } from "./sharing.js";
import { Snapshot } from "./snapshot.js";
import { Tokens } from "./tokens.js";

const PAGE_EVENTS = ["online", "offline", "visibilitychange", "pageshow", "resume", "pagehide", "freeze"];
/** A page may be stored, or stopped: then it must have no connection. */
const PAUSING_EVENTS = ["pagehide", "freeze"];

export class Stream extends EventTarget {
  /** @type {Status} */
  #status = "connecting";
  #ended = new AbortController();
  #settings;
  /** @type {Source} The address, and the present position and topics. */
  #source;
  #store;
  #begun = false;
  #recoveredThrough = 0;
  #requests;
  #snapshot;
  #tabs;
  #connections;

  /**
   * @param {string} url
   * @param {Options} options
   */
  constructor(url, options) {
    super();
    const { topics, since, epoch, shared, token } = options;
    const settings = settingsOf(url, options);
    this.#settings = settings;
    this.#store = new PositionStore(settings);
    this.#source = { url, topics, ...(this.#store.place ?? { position: since, epoch }) };
    this.#requests = new Requests(settings.limit);
    this.#snapshot = new Snapshot(settings, {
      resume: (held, number) => this.#resume(held, number),
      rewind: (number) => this.#rewind(number),
    });
    this.#tabs = new TabGroup(shared ? `${settings.key},${shared}` : "", {
      reopen: () => this.#connections.open(),
      serve: (request) => this.#serve(request),
    });
    const parts = { source: this.#source, tokens: new Tokens(token), tabs: this.#tabs };
    this.#connections = new Connections(settings, parts, {
      take: (link, frame) => this.#takeFrame(link, frame),
      become: (status, detail) => this.#changeStatus(status, detail),
      refuse: (type, detail) => this.#refuse(type, detail),
      slowDown: () => this.#requests.slowDown(),
    });
    for (const type of PAGE_EVENTS) {
      globalThis.addEventListener?.(type, this.#notice, { capture: true, signal: this.#ended.signal });
    }
    this.#connections.open();
  }

  get status() {
    return this.#status;
  }

  get position() {
    return this.#source.position;
  }

  get epoch() {
    return this.#source.epoch;
  }

  get topics() {
    return this.#source.topics;
  }

  get transport() {
    return this.#connections.link?.transport;
  }

  get connectionId() {
    return this.#connections.link?.greeting?.connection_id;
  }

  /**
   * @param {string} type
   * @param {(message: any) => void} handler
   */
  on(type, handler) {
    const listener = (/** @type {any} */ { detail }) => handler(detail);
    this.addEventListener(`message:${type}`, listener);
    return () => this.removeEventListener(`message:${type}`, listener);
  }

  [Symbol.asyncIterator]() {
    return messagesOf(this, { limit: this.#settings.limit, signal: this.#ended.signal });
  }

  /** @param {object} message */
  publish(message) {
    return this.#requests.add({ type: "publish", message });
  }

  /**
   * @param {string} name
   * @param {any} data
   */
  command(name, data) {
    return this.#requests.add({ type: "command", name, data });
  }

  /** @param {string[]} topics */
  follow(...topics) {
    return this.#requests.add({ type: "follow", topics });
  }

  /** @param {string[]} topics */
  unfollow(...topics) {
    return this.#requests.add({ type: "unfollow", topics });
  }

  drop(milliseconds = 0) {
    if (this.#status !== "closed") this.#connections.drop(milliseconds);
  }

  close() {
    this.#pause();
    this.#changeStatus("closed");
    this.#ended.abort();
    this.#snapshot.close();
    this.#requests.close();
  }

  /** Closes the connection, and gives up the lead of the tabs. */
  #pause() {
    this.#tabs.leave();
    this.#connections.end();
  }

  #notice = (/** @type {Event} */ { type }) => {
    if (PAUSING_EVENTS.includes(type)) {
      this.#pause();
      this.#changeStatus("waiting");
    } else {
      this.#connections.notice(type);
    }
  };

  /**
   * @param {string} type
   * @param {any} detail
   */
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /**
   * @param {Status} status
   * @param {object} [detail]
   */
  #changeStatus(status, detail) {
    if (status === this.#status && !detail) return;
    this.#status = status;
    if (this.#tabs.leads) this.#tabs.post({ status });
    this.#emit("status", { status, ...detail });
  }

  /**
   * @param {"refused" | "unauthorized"} type
   * @param {object} detail
   */
  #refuse(type, detail) {
    this.close();
    this.#emit(type, detail);
  }

  // Frames.

  /**
   * @param {Link} link
   * @param {any} frame
   */
  #takeFrame(link, frame) {
    if (!frame?.type) return;
    const before = this.#source.position;
    const isMessage = Boolean(frame.timestamp);
    this.#connections.promote(link);
    // The answer to a request over HTTP does not show that events arrive.
    if (isMessage || !frame.id) link.heard();
    const loss = this.#movePosition(frame);
    this.#passOn(link, frame);
    if (!isMessage) this.#obeyFrame(link, frame);
    else if (frame.sequence_number > Number(before)) this.#deliver(frame);
    if (loss) this.#emit(loss.type, loss);
  }

  /**
   * Passes a frame on to the other tabs, with the position of the link before it, and all topics: the server names what
   * has changed.
   *
   * @param {Link} link
   * @param {Frame} frame
   */
  #passOn(link, frame) {
    if (frame.added && link.transport !== "tabs") {
      frame.topics = topicsAfter(link.greeting?.topics ?? this.#source.topics, frame.added, frame.removed);
    }
    if (this.#tabs.leads) this.#tabs.share(frame, this.#source.epoch, link.position);
    link.movePosition(frame);
  }

  /** @param {Frame} frame */
  #movePosition(frame) {
    const before = this.#source.position;
    const isFirst = frame.type === "connected" && !this.#begun;
    const { loss, position, epoch } = placeAfter(this.#source, frame);
    this.#source.position = position;
    this.#source.epoch = epoch;
    this.#begun ||= isFirst;
    if (isFirst || loss) this.#snapshot.hold(Math.min(before ?? Infinity, Number(position)));
    this.#save();
    return loss;
  }

  /**
   * @param {Link} link
   * @param {Frame} frame
   */
  #obeyFrame(link, frame) {
    const { type, added, topics } = frame;
    if (type === "connected") this.#begin(link, frame);
    if (type === "authenticated") this.#connections.expectRenewal(link, frame);
    if (type === "heartbeat") this.#changeStatus("live");
    if (type === "status") this.#changeStatus(frame.status);
    if (type === "reconnect") this.#connections.postpone(frame.after_ms);
    if (added && link.greeting) link.greeting = { ...link.greeting, topics };
    if (type === "following" || (type === "authenticated" && this.#source.topics)) this.#source.topics = topics;
    this.#requests.settle(frame);
  }

  /**
   * @param {Link} link
   * @param {Frame} frame `connected`.
   */
  #begin(link, frame) {
    this.#source.topics = frame.chosen ?? this.#source.topics;
    this.#recoveredThrough = frame.latest;
    this.#connections.connected(link, frame);
    this.#changeStatus(frame.status ?? (frame.outcome ? "recovering" : "live"));
    this.#requests.repeat(link, frame.max_age);
  }

  #save() {
    if (!this.#snapshot.isLoading && this.#status !== "closed") this.#store.save(this.#source);
  }

  /** @param {Frame} frame A message. */
  #deliver(frame) {
    if (this.#status === "closed") return;
    const message = /** @type {Message} */ ({ ...frame, recovered: frame.sequence_number <= this.#recoveredThrough });
    if (this.#snapshot.holds(message)) return;
    for (const type of new Set([message.type, "*"])) this.#emit(`message:${type}`, message);
  }

  /**
   * Delivers the messages that waited for a snapshot, except those that it includes.
   *
   * @param {Message[]} held
   * @param {number} number
   */
  #resume(held, number) {
    this.#source.position = Math.max(Number(this.#source.position), number);
    for (const each of held) if (each.sequence_number > number) this.#deliver(each);
    this.#save();
  }

  /**
   * Goes back to an earlier position, and reconnects: the server sends what follows it, or declares it lost, which needs
   * another snapshot. That one may be as old, because the loss has been declared.
   *
   * @param {number} number
   */
  #rewind(number) {
    this.#source.position = number;
    // The number may be of an earlier epoch, which is then a reset: only the server knows.
    this.#source.epoch = undefined;
    if (this.#connections.link) this.#connections.open();
  }

  // Requests of other tabs.

  /** @param {Frame} request */
  #serve(request) {
    if (request.type === "ping") {
      // Not the position of this tab, whose snapshot may be ahead of the connection.
      const { greeting, position } = this.#connections.link ?? {};
      if (greeting) this.#greetTab(greeting, position);
      else this.#tabs.post({ status: this.#status });
      this.#connections.notice(request.type);
    } else {
      this.#requests.adopt(request);
    }
  }

  /**
   * @param {Frame} greeting
   * @param {number | undefined} position
   */
  #greetTab(greeting, position) {
    const { topics: chosen, epoch } = this.#source;
    const frame = { ...greeting, outcome: undefined, sequence_number: position, chosen, status: this.#status };
    this.#tabs.share(frame, epoch, position);
  }
}
