/** The view that publishes any message, once, also if it has to be tried again. */

import { Refused } from "./api.js";
import { audienceOf, draftOf, fieldOf } from "./draft.js";
import { create, element, setText } from "./elements.js";
import { clock, count, sentence } from "./format.js";

/** @typedef {import("./draft.js").Field} Field */

const FIELDS = /** @type {const} */ (["type", "topics", "users", "data"]);
const KEY_BYTES = 16;

export class PublishView {
  #api;
  #form = element("publish-form", HTMLFormElement);
  #button = element("publish-button", HTMLButtonElement);
  #result = element("publish-result", HTMLElement);
  /** Of the message as it is typed now: trying again publishes nothing that was published already. */
  #key = newKey();
  #publishing = false;

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.#api = api;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#publish();
    });
    this.#form.addEventListener("input", () => this.#changed());
    element("publish-tidy", HTMLButtonElement).addEventListener("click", () => this.#tidy());
    this.#changed();
  }

  start() {}

  stop() {}

  #changed() {
    this.#key = newKey();
    setText(element("publish-audience", HTMLElement), audience(this.#typed));
    setText(this.#button, "Publish");
    this.#result.replaceChildren();
    for (const field of FIELDS) if (invalid(field)) showError(field, draftOf(this.#typed).errors[field] ?? "");
  }

  get #typed() {
    return { type: value("type"), topics: value("topics"), users: value("users"), data: value("data") };
  }

  async #publish() {
    const { draft, errors } = draftOf(this.#typed);
    for (const field of FIELDS) showError(field, errors[field] ?? "");
    const first = FIELDS.find((field) => errors[field] !== undefined);
    if (first !== undefined) return input(first).focus();
    if (this.#publishing) return;
    this.#publishing = true;
    const key = this.#key;
    try {
      const stamp = await this.#api.publishOnce(draft, key);
      this.#published(stamp, key);
    } catch (error) {
      this.#failed(error);
    } finally {
      this.#publishing = false;
    }
  }

  /** @param {import("./api.js").Stamp} stamp @param {string} key */
  #published({ sequence_number: number, timestamp }, key) {
    // What was typed in the meantime is another message, and has another key.
    if (key === this.#key) this.#key = newKey();
    setText(this.#button, "Publish another one");
    const link = create("a", "", "Look at it in the log");
    link.href = "#log";
    const at = `Published at ${clock(timestamp)} with the number `;
    this.#result.className = "good";
    this.#result.replaceChildren(at, create("code", "", String(number)), ". ", link);
  }

  /** @param {unknown} error */
  #failed(error) {
    const text = error instanceof Error ? error.message : String(error);
    const refused = error instanceof Refused && error.status < 500;
    const field = refused ? fieldOf(text) : undefined;
    this.#result.className = "bad";
    if (field !== undefined && error instanceof Refused && [403, 422].includes(error.status)) {
      showError(field, sentence(text));
      input(field).focus();
      return this.#result.replaceChildren();
    }
    const again = refused ? "" : " It may have been published: trying again does not publish it twice.";
    if (!refused) setText(this.#button, "Try again");
    setText(this.#result, `This was not confirmed: ${text}.${again}`);
  }

  #tidy() {
    const { data } = draftOf(this.#typed).draft;
    const { data: error = "" } = draftOf(this.#typed).errors;
    showError("data", error);
    if (error === "" && data !== undefined) input("data").value = JSON.stringify(data, null, 2);
  }
}

/** @param {Field} field @returns {HTMLInputElement | HTMLTextAreaElement} */
function input(field) {
  return /** @type {HTMLInputElement} */ (element(`publish-${field}`, HTMLElement));
}

/** @param {Field} field */
function value(field) {
  return input(field).value;
}

/** @param {Field} field */
function invalid(field) {
  return input(field).getAttribute("aria-invalid") === "true";
}

/** @param {Field} field @param {string} text */
function showError(field, text) {
  input(field).setAttribute("aria-invalid", String(text !== ""));
  setText(element(`publish-${field}-error`, HTMLElement), text);
}

/** @param {{topics: string, users: string}} typed */
function audience(typed) {
  const { topics, users } = audienceOf(typed);
  const parts = [
    ...(topics.length > 0
      ? [`the followers of ${topics.length === 1 ? "this topic" : `these ${count(topics.length)} topics`}`]
      : []),
    ...(users.length > 0 ? [users.length === 1 ? "this user" : `these ${count(users.length)} users`] : []),
  ];
  return parts.length === 0
    ? "Without topics and users, the message is for everyone."
    : `The message is for ${parts.join(" and ")}.`;
}

/** Not randomUUID, which is missing on pages without HTTPS. */
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(KEY_BYTES));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
