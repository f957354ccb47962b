/** The view of the server: everything of its status, what its rules keep, and the nodes that share its log. */

import { create, element, setText } from "./elements.js";
import { Feed } from "./feed.js";
import { age, bytes, count, duration } from "./format.js";
import { factElement } from "./inspector.js";
import { cell, Rows, showEmpty } from "./table.js";

/** @typedef {import("./api.js").Api} Api */
/** @typedef {import("./api.js").Node} NodeFacts */
/** @typedef {import("./api.js").Rule} Rule */
/** @typedef {import("./api.js").Status} Status */

/** @type {Record<string, [label: string, format: (value: any) => string]>} */
const LABELS = {
  node_id: ["Node", String],
  epoch: ["Epoch", String],
  connections: ["Connections to this node", count],
  published: ["Published in this epoch", count],
  delivered: ["Delivered by this node", count],
  ephemeral_delivered: ["Ephemeral messages delivered", count],
  ephemeral_dropped: ["Ephemeral messages dropped", count],
  evicted: ["Evicted by this node", count],
  replaced: ["Replaced by later values", count],
  gaps: ["Gaps", count],
  stalls: ["Stalls", count],
  oldest: ["Oldest number", String],
  latest: ["Newest number", String],
  "log.messages": ["Messages in the log", count],
  "log.values": ["Values by key", count],
  "log.max_messages": ["Most without a rule", count],
  "log.bytes": ["Size of the log", bytes],
  "log.max_bytes": ["Largest size", bytes],
  "log.reach_seconds": ["Oldest without a rule", (seconds) => `${duration(seconds)} ago`],
  "log.max_age": ["Retention without a rule", duration],
};
/** Shown elsewhere. */
const ELSEWHERE = ["problem"];

export class ServerView {
  #status;
  #nodes;
  #nodesRoot = element("nodes-panel", HTMLElement);
  #rows = new Rows(element("nodes-rows", HTMLElement), () => new NodeRow());
  #rules = new Rows(element("rules-rows", HTMLElement), () => new RuleRow());

  /** @param {Api} api */
  constructor(api) {
    this.#status = new Feed(element("status", HTMLElement), {
      ask: () => api.status(),
      show: (status) => this.#showStatus(status),
    });
    this.#nodes = new Feed(this.#nodesRoot, { ask: () => api.nodes(), show: ({ nodes }) => this.#showNodes(nodes) });
  }

  start() {
    this.#status.start();
    this.#nodes.start();
  }

  stop() {
    this.#status.stop();
    this.#nodes.stop();
  }

  /** @param {Status} status */
  #showStatus(status) {
    showFacts(status);
    this.#rules.show(status.log.rules, ({ pattern }) => pattern ?? "");
  }

  /** @param {NodeFacts[]} nodes */
  #showNodes(nodes) {
    setText(element("nodes-total", HTMLElement), count(nodes.length));
    showEmpty(this.#nodesRoot, nodes.length === 0 ? "No node has answered." : "");
    this.#rows.show(nodes, (node) => node.node_id);
  }
}

/** @param {Status} status */
function showFacts(status) {
  const problem = element("status-problem", HTMLElement);
  problem.className = status.problem === null ? "good" : "bad";
  setText(problem, status.problem ?? "No problem.");
  const facts = flat(status).filter(([name]) => !ELSEWHERE.includes(name));
  // In the order of the labels. What a newer server knows comes last, with its own name.
  const order = Object.keys(LABELS);
  const place = (/** @type {string} */ name) => (order.includes(name) ? order.indexOf(name) : order.length);
  facts.sort(([one], [other]) => place(one) - place(other));
  element("status-facts", HTMLElement).replaceChildren(...facts.map((fact) => factElement(labelled(fact))));
}

/** @param {[string, unknown]} fact @returns {import("./inspector.js").Fact} */
function labelled([name, value]) {
  const [label, format] = LABELS[name] ?? [name.replaceAll(/[._]/g, " "), String];
  return [label, value === null ? "none" : format(value)];
}

/** @param {Record<string, unknown>} facts @param {string} [prefix] @returns {[string, unknown][]} */
function flat(facts, prefix = "") {
  return Object.entries(facts).flatMap(([name, value]) => {
    // Lists have a table of their own.
    if (Array.isArray(value)) return [];
    if (typeof value !== "object" || value === null) return [/** @type {[string, unknown]} */ ([prefix + name, value])];
    return flat(/** @type {Record<string, unknown>} */ (value), `${prefix}${name}.`);
  });
}

class RuleRow {
  element = create("tr", "");
  #pattern = create("span", "code");
  #messages = cell("Messages", "figure");
  #values = cell("Values", "figure");
  #topics = cell("Topics", "figure");
  #bytes = cell("Size", "figure");
  #limits = cell("Keeps", "reason");

  constructor() {
    const title = create("th", "", this.#pattern);
    title.scope = "row";
    this.element.append(title, this.#messages, this.#values, this.#topics, this.#bytes, this.#limits);
  }

  /** @param {Rule} rule */
  show(rule) {
    const most = count(rule.max_messages);
    setText(this.#pattern, rule.pattern ?? "no rule");
    setText(this.#messages, count(rule.messages));
    setText(this.#values, count(rule.values));
    setText(this.#topics, rule.pattern === null ? "–" : count(rule.topics));
    setText(this.#bytes, bytes(rule.bytes));
    setText(this.#limits, `${most} messages${rule.pattern === null ? "" : " of each"} for ${duration(rule.max_age)}`);
  }
}

class NodeRow {
  element = create("tr", "");
  #id = create("span", "code");
  #badge = create("span", "badge");
  #connections = cell("Connections", "figure");
  #behind = cell("Behind", "figure");
  #latest = cell("Newest number", "figure code");
  #up = cell("Up", "figure");
  #state = cell("State", "reason");

  constructor() {
    const title = create("th", "", this.#id, this.#badge);
    title.scope = "row";
    this.element.append(title, this.#connections, this.#behind, this.#latest, this.#up, this.#state);
  }

  /** @param {NodeFacts} node */
  show(node) {
    setText(this.#id, node.node_id);
    setText(this.#badge, node.own ? "this node" : "");
    setText(this.#connections, figure(node.connections));
    setText(this.#behind, figure(node.behind));
    setText(this.#latest, node.latest === null ? "–" : String(node.latest));
    setText(this.#up, node.started_at === null ? "–" : age(node.started_at));
    setText(this.#state, state(node));
    this.element.classList.toggle("bad", node.connections === null || node.problem !== null);
  }
}

/** @param {number | null} value */
function figure(value) {
  return value === null ? "–" : count(value);
}

/** @param {NodeFacts} node */
function state({ connections, draining, problem }) {
  if (connections === null) return "no answer";
  if (problem !== null) return problem;
  return draining ? "shutting down" : "ready";
}
