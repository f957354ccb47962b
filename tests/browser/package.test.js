/** The package as npm installs it. `test_package.py` installs it. */

import assert from "node:assert/strict";
import test, { afterEach } from "node:test";

import { createElement } from "react";
import { act, create } from "react-test-renderer";
import { connect } from "unmissed";
import { useUnmissed as useInReact } from "unmissed/react";
import { useUnmissed as useInVue } from "unmissed/vue";
import { effectScope } from "vue";

import { CONNECTED, fakeSockets, message, restoreGlobals, setGlobal, settled } from "./fakes.js";

const URL_OF_SERVER = "http://server.test";

afterEach(restoreGlobals);

test("the package exports connect, and needs no browser to be imported", () => {
  assert.equal(typeof connect, "function");
});

test("the React hook renders the status, calls the newest handler, and closes with the component", async () => {
  setGlobal("IS_REACT_ACT_ENVIRONMENT", true);
  const sockets = fakeSockets();
  const received = [];
  const Component = ({ name }) => {
    const onMessage = ({ sequence_number }) => received.push([name, sequence_number]);
    return useInReact(URL_OF_SERVER, { token: "t", onMessage }).status;
  };
  let view;
  await act(async () => (view = create(createElement(Component, { name: "first" }))));
  await act(() => settled());
  assert.equal(view.toJSON(), "connecting");

  await act(() => sockets[0].receive(CONNECTED, message(8)));
  await act(async () => view.update(createElement(Component, { name: "second" })));
  await act(() => sockets[0].receive(message(9)));
  assert.equal(view.toJSON(), "live");
  await act(async () => view.unmount());

  assert.deepEqual(received, [
    ["first", 8],
    ["second", 9],
  ]);
  assert.deepEqual([sockets.length, sockets[0].closed], [1, true]);
});

test("the React hook needs no options", async () => {
  setGlobal("IS_REACT_ACT_ENVIRONMENT", true);
  const sockets = fakeSockets();
  const Component = () => useInReact(URL_OF_SERVER).status;
  let view;
  await act(async () => (view = create(createElement(Component))));
  await act(() => settled());

  await act(() => sockets[0].receive(CONNECTED, message(8)));

  assert.equal(view.toJSON(), "live");
  await act(async () => view.unmount());
});

test("the Vue composable tells the status, and closes with its scope", async () => {
  setGlobal("document", {});
  const sockets = fakeSockets();
  const received = [];
  const scope = effectScope();
  const { status } = scope.run(() =>
    useInVue(URL_OF_SERVER, { token: "t", onMessage: ({ sequence_number }) => received.push(sequence_number) }),
  );
  await settled();

  await sockets[0].receive(CONNECTED, message(8));
  assert.equal(status.value, "live");
  scope.stop();

  assert.deepEqual(received, [8]);
  assert.ok(sockets[0].closed);
});

test("the Vue composable does not connect on a server", () => {
  const sockets = fakeSockets();

  const { stream, status } = effectScope().run(() => useInVue(URL_OF_SERVER));

  assert.deepEqual([stream, status.value, sockets.length], [undefined, "connecting", 0]);
});
