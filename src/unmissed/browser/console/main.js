/** Starts the console when there is a token, and asks for one when there is none. */

import { Console } from "./console.js";
import { element, setText } from "./elements.js";
import { listenForShortcuts } from "./shortcuts.js";
import { forgetToken, keepToken, takeToken } from "./token.js";

const base = new URL("../..", location.href).href.replace(/\/$/, "");

function start() {
  listenForShortcuts();
  element("forget", HTMLButtonElement).addEventListener("click", leave);
  element("sign-in", HTMLFormElement).addEventListener("submit", enter);
  // The address of a restarted server differs in its fragment only, for which browsers do not load a page again.
  addEventListener("hashchange", () => takeToken() && location.reload());
  const token = takeToken();
  if (token === null) return showSignIn("");
  element("forget", HTMLButtonElement).hidden = element("console", HTMLElement).hidden = false;
  const page = new Console(base, token);
  page.addEventListener("ended", (event) => showSignIn(/** @type {CustomEvent} */ (event).detail));
}

function leave() {
  forgetToken();
  location.reload();
}

/** @param {SubmitEvent} event */
function enter(event) {
  event.preventDefault();
  keepToken(element("token", HTMLInputElement).value.trim());
  location.reload();
}

/** @param {string} reason */
function showSignIn(reason) {
  element("sign-in", HTMLFormElement).hidden = false;
  setText(element("sign-in-reason", HTMLElement), reason);
  element("token", HTMLInputElement).focus();
}

start();
