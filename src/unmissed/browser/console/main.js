/** Starts the console when there is a token, and asks for one when there is none. */

import { Console } from "./console.js";
import { element, setText } from "./elements.js";
import { ask } from "./question.js";
import { listenForShortcuts } from "./shortcuts.js";
import { forgetToken, keepToken, keptToken, takeLinkedToken } from "./token.js";

const base = new URL("../..", location.href).href.replace(/\/$/, "");

function start() {
  listenForShortcuts();
  element("forget", HTMLButtonElement).addEventListener("click", leave);
  element("sign-in", HTMLFormElement).addEventListener("submit", enter);
  // The address of a restarted server differs in its fragment only, for which browsers do not load a page again.
  addEventListener("hashchange", () => followLink(() => location.reload()));
  followLink(() => {});
  const token = keptToken();
  if (token === null) return showSignIn("");
  element("forget", HTMLButtonElement).hidden = element("console", HTMLElement).hidden = false;
  const page = new Console(base, token);
  page.addEventListener("ended", (event) => showSignIn(/** @type {CustomEvent} */ (event).detail));
}

/**
 * Keep the token of a link. Any page can open this one with a token of its own, so ask before it replaces another.
 * @param {() => void} taken called at once if there was no token
 */
async function followLink(taken) {
  const token = takeLinkedToken();
  if (token === null || token === keptToken()) return;
  if (keptToken() === null) {
    keepToken(token);
    return taken();
  }
  const replace = await ask({
    title: "Sign in as another user?",
    text: "A link has opened this page with another token. Use it only if the link is yours.",
    yes: "Use the token of the link",
    no: "Keep my token",
  });
  if (!replace) return;
  keepToken(token);
  location.reload();
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
