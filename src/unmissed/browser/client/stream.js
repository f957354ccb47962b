/**
 * The face of the client: what an application holds, and what each frame of the server does to it.
 *
 * @import { Frame, Message, Options, SnapshotStatus, Status, Stream } from "../types.js"
 * @import { Place } from "./decisions.js"
 * @import { Link, Source } from "./link.js"
 */

import { createBacklog } from "./backlog.js";
import { createConnections } from "./connections.js";
import { placeAfter, topicsAfter } from "./decisions.js";
import { CLOSED, failure } from "./failures.js";
import { messagesOf } from "./loop.js";
import { createPositionStore } from "./position_store.js";
import { explainEnd } from "./report.js";
import { createRequests } from "./requests.js";
import { settingsOf } from "./settings.js";
import { createTabGroup } from "./sharing.js";
import { createSnapshot } from "./snapshot.js";
import { createTokens } from "./tokens.js";

const PAGE_EVENTS = ["online", "offline", "visibilitychange", "pageshow", "resume", "pagehide", "freeze"];
/** A page may be stored, or stopped: then it must have no connection. */
const PAUSING_EVENTS = ["pagehide", "freeze"];
/** The event of a message has its type after this. */
const MESSAGE = "message:";
const ALL = "*";

/**
 * Opens a stream.
 *
 * @param {string} url
 * @param {Options} options
 * @returns {Stream}
 */
export const openStream = (url, options) => {
  const settings = settingsOf(url, options);
  const target = new EventTarget();
  const ended = new AbortController();
  /** The types of events that have had a listener. */
  const heard = new Set();
  /** @type {Status} */
  let status = "connecting";
  /** @type {SnapshotStatus | undefined} */
  let snapshotStatus;
  let begun = false;
  let recoveredThrough = 0;

  // What happens to the application.

  /**
   * @param {string} type
   * @param {any} detail
   */
  const emit = (type, detail) => {
    if (!type.startsWith(MESSAGE)) settings.log(type, detail);
    target.dispatchEvent(new CustomEvent(type, { detail }));
  };

  /**
   * @param {Status} present
   * @param {object} [detail]
   */
  const changeStatus = (present, detail) => {
    if (present === status && !detail) return;
    status = present;
    if (tabs.leads) tabs.postData({ status });
    emit("status", { status, ...detail });
  };

  /**
   * @param {any} error
   * @param {string} during What failed: `token`, `snapshot`, `storage` or `connection`.
   */
  const report = (error, during) => {
    settings.log(during, `${error}`);
    emit("error", { error, during });
    // A token that cannot be had is an everyday failure, as without a network.
    if (during !== "token" && !heard.has("error")) reportError(error);
  };

  /**
   * @param {"refused" | "unauthorized"} type
   * @param {{ code: number, reason: string }} end
   */
  const refuse = (type, end) => {
    const error = failure(end.code, end.reason);
    endBecause(error);
    emit(type, end);
    emit("error", { error, during: "connection" });
    if (!heard.has(type) && !heard.has("error")) explainEnd(type, end);
  };

  /** @param {Error} error Why: what waits is rejected with it. */
  const endBecause = (error) => {
    if (status === "closed") return;
    pause();
    changeStatus("closed");
    snapshot.close();
    requests.close(error);
    ended.abort(error);
  };

  /** Closes the connection, and gives up the lead of the tabs. */
  const pause = () => {
    tabs.leave();
    connections.end();
  };

  /** Reacts to an event of the page. @param {Event} event */
  const notice = ({ type }) => {
    if (PAUSING_EVENTS.includes(type)) {
      pause();
      changeStatus("waiting", { reason: type });
    } else {
      connections.notice(type);
    }
  };

  // Frames.

  /**
   * @param {Link} link
   * @param {any} frame
   */
  const takeFrame = (link, frame) => {
    if (!frame?.type) return;
    const before = /** @type {number} */ (source.position);
    const isMessage = Boolean(frame.timestamp);
    connections.promote(link);
    // The answer to a request over HTTP does not show that events arrive.
    if (isMessage || !frame.id) link.heard();
    const loss = movePosition(frame);
    passOn(link, frame);
    if (!isMessage) obeyFrame(link, frame);
    else if (frame.sequence_number > before) deliver(frame);
    if (loss) deliverEvent(loss.type, loss);
    else if (!isMessage) backlog?.follow(source);
  };

  /**
   * Passes a frame on to the other tabs, with the position of the link before it, and all topics: the server names what
   * has changed.
   *
   * @param {Link} link
   * @param {Frame} frame
   */
  const passOn = (link, frame) => {
    if (frame.added && link.transport !== "tabs") {
      frame.topics = topicsAfter(link.greeting?.topics ?? source.topics, frame.added, frame.removed);
    }
    if (tabs.leads) tabs.shareFrame(frame, source.epoch, link.position);
    link.movePosition(frame);
  };

  /** @param {Frame} frame */
  const movePosition = (frame) => {
    const before = source.position;
    const isFirst = frame.type === "connected" && !begun;
    const { loss, ...place } = placeAfter(source, frame);
    Object.assign(source, place);
    begun ||= isFirst;
    if (isFirst || loss) snapshot.hold(Math.min(before ?? Infinity, /** @type {number} */ (source.position)));
    savePosition();
    return loss;
  };

  /**
   * @param {Link} link
   * @param {Frame} frame
   */
  const obeyFrame = (link, frame) => {
    const { type, added, topics } = frame;
    if (type === "connected") begin(link, frame);
    if (type === "authenticated") connections.expectRenewal(link, frame);
    if (type === "heartbeat") changeStatus("live");
    if (type === "status") changeStatus(frame.status);
    if (type === "reconnect") connections.postpone(frame.after_ms);
    if (added && link.greeting) link.greeting = { ...link.greeting, topics };
    if (type === "following" || (type === "authenticated" && source.topics)) source.topics = topics;
    requests.settle(frame);
  };

  /**
   * @param {Link} link
   * @param {Frame} frame `connected`.
   */
  const begin = (link, frame) => {
    source.topics = frame.chosen ?? source.topics;
    recoveredThrough = frame.latest;
    connections.greet(link, frame);
    changeStatus(frame.status ?? (frame.outcome ? "recovering" : "live"));
    requests.repeatOn(link, frame.max_age);
  };

  const savePosition = () => {
    if (!snapshot.isLoading() && !backlog && status !== "closed") store.save(source);
  };

  /** @param {Frame} frame A message. */
  const deliver = (frame) => {
    if (status === "closed") return;
    const message = /** @type {Message} */ ({ ...frame, recovered: frame.sequence_number <= recoveredThrough });
    if (!snapshot.holds(message)) deliverEvent(MESSAGE, message);
  };

  /**
   * @param {string} type `message:`, `gap` or `reset`.
   * @param {any} detail
   */
  const deliverEvent = (type, detail) => {
    const place = { ...source, position: detail.sequence_number ?? source.position };
    if (backlog) backlog.add({ type, detail, place });
    else emitEvent(type, detail);
  };

  /**
   * @param {string} type
   * @param {any} detail
   */
  const emitEvent = (type, detail) => {
    if (type !== MESSAGE) emit(type, detail);
    else for (const each of new Set([detail.type, ALL])) emit(type + each, detail);
  };

  /** Delivers what has waited for the first handler. */
  const deliverBacklog = () => {
    if (!backlog) return;
    const { waitingEvents, isIncomplete } = backlog;
    settings.log("delivers what waited:", waitingEvents.length);
    for (const { type, detail, place } of waitingEvents) {
      if (status === "closed") return;
      backlog.place = place;
      if (!snapshot.isLoading()) store.save(place);
      emitEvent(type, detail);
    }
    const { place } = backlog;
    backlog = undefined;
    if (isIncomplete) rewind(place);
    else savePosition();
  };

  /**
   * Delivers the messages that waited for a snapshot, except those that it includes.
   *
   * @param {Message[]} held
   * @param {number} number
   */
  const goOnWith = (held, number) => {
    source.position = Math.max(/** @type {number} */ (source.position), number);
    backlog?.beginAgain({ ...source, position: number });
    for (const each of held) if (each.sequence_number > number) deliver(each);
    savePosition();
  };

  /**
   * Goes back to an earlier place, and reconnects: the server sends what follows it, or declares it lost, which needs another
   * snapshot. That one may be as old, because the loss has been declared. The number of a snapshot may be of an earlier
   * epoch, which is then a reset: without an epoch, only the server knows.
   *
   * @param {Place} place
   */
  const rewind = ({ position, epoch }) => {
    settings.log("goes back to", position);
    Object.assign(source, { position, epoch });
    backlog?.beginAgain(source);
    if (connections.presentLink) connections.open();
  };

  /**
   * Answers another tab, for which this one has the connection.
   *
   * @param {Frame} request
   */
  const serve = (request) => {
    if (request.type === "ping") {
      // Not the position of this tab, whose snapshot may be ahead of the connection.
      const { greeting, position } = connections.presentLink ?? {};
      const facts = { outcome: undefined, sequence_number: position, chosen: source.topics, status };
      if (greeting) tabs.shareFrame({ ...greeting, ...facts }, source.epoch, position);
      else tabs.postData({ status });
      connections.notice(request.type);
    } else {
      requests.adoptFrame(request);
    }
  };

  const store = createPositionStore(settings, report);
  /** The address, and the place and topics of the connection. @type {Source} */
  const source = {
    url,
    topics: options.topics,
    ...(store.load() ?? { position: options.since, epoch: options.epoch }),
  };
  /** Until the application has its first handler. @type {ReturnType<typeof createBacklog> | undefined} */
  let backlog = createBacklog(source, settings.limit);
  const tokens = createTokens(options.token);
  const requests = createRequests(settings);
  const snapshot = createSnapshot(settings, {
    begin: () => backlog?.beginAgain(source),
    goOnWith,
    rewind,
    change(present, detail) {
      snapshotStatus = present;
      emit("snapshot", { status: present, ...detail });
    },
    report,
  });
  const tabs = createTabGroup(options.shared ? `${settings.key},${options.shared}` : "", {
    reopen: () => connections.open(),
    serve,
  });
  const { slowDown } = requests;
  const listener = { takeFrame, changeStatus, refuse, slowDown, report };
  const connections = createConnections(settings, { source, tokens, tabs }, listener);

  const face = {
    get status() {
      return status;
    },
    get snapshotStatus() {
      return snapshotStatus;
    },
    get position() {
      return (backlog?.place ?? source).position;
    },
    get epoch() {
      return (backlog?.place ?? source).epoch;
    },
    get topics() {
      return source.topics;
    },
    get transport() {
      return connections.presentLink?.transport;
    },
    get connectionId() {
      return connections.presentLink?.greeting?.connection_id;
    },

    /**
     * Notices the first handler of messages. What waits for it follows when the present code has added all its handlers.
     *
     * @type {EventTarget["addEventListener"]}
     */
    addEventListener(type, listener_, when) {
      EventTarget.prototype.addEventListener.call(stream, type, listener_, when);
      heard.add(type);
      if (type.startsWith(MESSAGE)) queueMicrotask(deliverBacklog);
    },

    /** @type {Stream["on"]} */
    on(type, handler) {
      const listener_ = (/** @type {any} */ { detail }) => handler(detail);
      stream.addEventListener(/** @type {any} */ (MESSAGE + type), listener_);
      return () => stream.removeEventListener(MESSAGE + type, listener_);
    },

    [Symbol.asyncIterator]: () => messagesOf(stream, { limit: settings.limit, signal: ended.signal }),

    /** @type {Stream["publish"]} */
    publish: (message) => requests.add({ type: "publish", message }),
    /** @type {Stream["command"]} */
    command: (name, data) => requests.add({ type: "command", name, data }),
    /** @type {Stream["follow"]} */
    follow: (...topics) => requests.add({ type: "follow", topics }),
    /** @type {Stream["unfollow"]} */
    unfollow: (...topics) => requests.add({ type: "unfollow", topics }),

    drop(milliseconds = 0) {
      if (status !== "closed") connections.drop(milliseconds);
    },
    close: () => endBecause(failure(CLOSED, "the stream is closed")),
  };
  /** @type {any} */
  const stream = Object.defineProperties(target, Object.getOwnPropertyDescriptors(face));

  for (const type of PAGE_EVENTS) {
    globalThis.addEventListener?.(type, notice, { capture: true, signal: ended.signal });
  }
  if (options.onMessage) stream.on(ALL, options.onMessage);
  connections.open();
  return stream;
};
