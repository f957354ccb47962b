/** A Vue composable. The stream lives as long as the component, or the effect scope, that calls it. */

import { onScopeDispose, readonly, ref } from "vue";

import { connect } from "./unmissed.js";

/**
 * Connects, and returns the stream and a ref of its status. On servers, which render pages, `stream` is undefined.
 *
 * @param {string} url The address of the server, such as `location.origin`.
 * @param {import("./types.js").Options & { onMessage?: (message: import("./types.js").Message) => void }} [options] What
 *   `connect` takes, and a function that is called with every message.
 * @returns {{ stream?: import("./types.js").Stream, status: Readonly<import("vue").Ref<import("./types.js").Status>> }}
 */
export function useUnmissed(url, { onMessage = () => {}, ...options } = {}) {
  const status = ref(/** @type {import("./types.js").Status} */ ("connecting"));
  if (!globalThis.document) return { status };
  const stream = connect(url, options);
  stream.on("*", onMessage);
  stream.addEventListener("status", () => (status.value = stream.status));
  onScopeDispose(() => stream.close());
  return { stream, status: readonly(status) };
}
