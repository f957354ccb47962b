/** Questions that the page asks before it does what others notice. */

import { element, setText } from "./elements.js";

/** @typedef {{title: string, text: string, yes: string, no?: string}} Question */

const LOCAL_HOSTS = ["localhost", "127.0.0.1", "[::1]"];
/** Answers the question that is being asked. @type {(yes: boolean) => void} */
let answer = () => {};
let testsAllowed = LOCAL_HOSTS.includes(location.hostname);

/**
 * Ask, and return whether the answer was yes. A new question answers the one before it with no.
 * @param {Question} question
 * @returns {Promise<boolean>}
 */
export function ask({ title, text, yes, no = "Cancel" }) {
  const dialog = element("question", HTMLDialogElement);
  answer(false);
  setText(element("question-title", HTMLElement), title);
  setText(element("question-text", HTMLElement), text);
  setText(element("question-yes", HTMLElement), yes);
  setText(element("question-no", HTMLElement), no);
  dialog.returnValue = "";
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    answer = resolve;
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
  });
}

/** Return whether test messages may be published: on another machine, ask once, because others may use its log. */
export async function mayPublishTests() {
  testsAllowed ||= await ask({
    title: "Publish test messages?",
    text:
      "This server is not on your machine. Test messages go to every connected client, and 50 a second push real " +
      "messages out of the log.",
    yes: "Publish",
  });
  return testsAllowed;
}
