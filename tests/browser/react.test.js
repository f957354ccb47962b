/** The React provider and hooks, from the package as npm installs it. `test_package.py` installs it. */

import assert from "node:assert/strict";
import test, { afterEach, beforeEach } from "node:test";

import { StrictMode, createElement } from "react";
import { renderToString } from "react-dom/server";
import { act, create } from "react-test-renderer";
import {
  UnmissedProvider,
  createUnmissed,
  useMembers,
  useMessages,
  useStatus,
  useStream,
  useValues,
} from "unmissed/react";

import { CONNECTED, fakeSockets, message, pass, restoreGlobals, setGlobal, settled } from "./fakes.js";

const URL_OF_SERVER = "http://server.test";

let sockets;
let view;

beforeEach(() => {
  setGlobal("IS_REACT_ACT_ENVIRONMENT", true);
  sockets = fakeSockets();
});

afterEach(async () => {
  await act(async () => view?.unmount());
  view = undefined;
  restoreGlobals();
});

const Status = () => useStatus();

const provider = (properties, ...children) =>
  createElement(UnmissedProvider, { url: URL_OF_SERVER, token: "t", ...properties }, ...children);

/** Renders, and waits for what follows. */
async function render(element) {
  await act(async () => {
    if (view) view.update(element);
    else view = create(element);
  });
  await act(() => settled());
}

const receive = (socket, ...frames) => act(() => socket.receive(...frames));
const isOpen = ({ closed }) => !closed;
const query = ({ url }) => Object.fromEntries(new URL(url).searchParams);
const sent = (type) => sockets.flatMap((socket) => socket.sent).filter((frame) => frame.type === type);

test("the status renders, and the connection ends with the provider", async () => {
  await render(provider({}, createElement(Status)));
  assert.equal(view.toJSON(), "connecting");

  await receive(sockets[0], CONNECTED);
  assert.equal(view.toJSON(), "live");
  await act(() => sockets[0].end());
  assert.equal(view.toJSON(), "waiting");
  await act(async () => view.unmount());

  assert.deepEqual(sockets.filter(isOpen), []);
});

test("messages reach the handler of the last render, which is not added again", async () => {
  const received = [];
  const added = [];
  const Component = ({ name, type }) => {
    const stream = useStream();
    useMessages(type, ({ sequence_number }) => received.push([name, sequence_number]));
    if (stream && !added.length) {
      const { on } = stream;
      stream.on = (...given) => added.push(given[0]) && on.apply(stream, given);
    }
    return null;
  };
  const renderAs = (name, type) => render(provider({}, createElement(Component, { name, type })));
  await renderAs("first", "chat");

  await receive(sockets[0], CONNECTED, message(8));
  await renderAs("second", "chat");
  await receive(sockets[0], message(9), message(10, { type: "order" }));
  await renderAs("third", "order");
  await receive(sockets[0], message(11), message(12, { type: "order" }));
  await renderAs("fourth", "*");
  await receive(sockets[0], message(13), message(14, { type: "order" }));

  assert.deepEqual(received, [
    ["first", 8],
    ["second", 9],
    ["third", 12],
    ["fourth", 13],
    ["fourth", 14],
  ]);
  assert.deepEqual(added, ["chat", "order", "*"]);
  assert.equal(sockets.length, 1);
});

test("a component that is unmounted gets no more messages", async () => {
  const received = [];
  const Component = () => useMessages("chat", ({ sequence_number }) => received.push(sequence_number));
  await render(provider({}, createElement(Component)));
  await receive(sockets[0], CONNECTED, message(8));

  await render(provider({}));
  await receive(sockets[0], message(9));

  assert.deepEqual(received, [8]);
});

test("in StrictMode, one connection remains, and handlers are called once", async () => {
  const received = [];
  const Component = () => {
    useMessages("chat", ({ sequence_number }) => received.push(sequence_number));
    return useStatus();
  };
  await render(createElement(StrictMode, null, provider({}, createElement(Component))));

  const open = sockets.filter(isOpen);
  await receive(open[0], CONNECTED, message(8));

  assert.deepEqual([open.length, received, view.toJSON()], [1, [8], "live"]);
});

test("other topics are followed and no longer followed on the same connection", async () => {
  const renderWith = (topics) => render(provider({ topics }));
  await renderWith(["a", "b"]);
  await receive(sockets[0], CONNECTED);

  await renderWith(["b", "c"]);
  await renderWith(["b", "c"]);

  assert.deepEqual(query(sockets[0]), { topics: "a,b" });
  assert.deepEqual(
    [...sent("follow"), ...sent("unfollow")].map(({ topics }) => topics),
    [["c"], ["a"]],
  );
  assert.equal(sockets.length, 1);
});

test("topics that are refused are reported", async () => {
  const reported = [];
  setGlobal("reportError", ({ code }) => reported.push(code));
  await render(provider({ topics: ["a"] }));
  await receive(sockets[0], CONNECTED);
  await render(provider({ topics: ["a", "b"] }));

  await receive(sockets[0], { type: "error", id: sent("follow")[0].id, code: 4403, detail: "not granted" });
  await render(provider({ topics: ["a", "c"] }));
  await act(async () => view.unmount());

  assert.deepEqual(reported, [4403]);
});

for (const [name, changed] of [
  ["another address", { url: "http://other.test" }],
  ["another key in the storage", { storageKey: "other" }],
  ["topics that the token chooses", { topics: undefined }],
  ["another key", { key: "another user" }],
]) {
  test(`${name} opens another stream`, async () => {
    const received = [];
    const Component = () => useMessages("chat", ({ sequence_number }) => received.push(sequence_number));
    await render(provider({ topics: ["a"] }, createElement(Component)));

    await render(provider({ topics: ["a"], ...changed }, createElement(Component)));
    await receive(sockets.at(-1), CONNECTED, message(8));

    assert.deepEqual(sockets.map(isOpen), [false, true]);
    assert.deepEqual(received, [8]);
  });
}

test("an address that is an object, and options of every render, open no other stream", async () => {
  const renderAgain = () => render(provider({ url: new URL(URL_OF_SERVER), topics: ["a"], token: () => "t" }));
  await renderAgain();

  await renderAgain();

  assert.deepEqual(sockets.map(isOpen), [true]);
});

for (const [name, tokenOf] of [
  ["function", (token) => () => token],
  ["string", (token) => token],
]) {
  test(`the token is the ${name} of the last render`, async () => {
    await render(provider({ token: tokenOf("first") }));
    await receive(sockets[0], CONNECTED);
    await render(provider({ token: tokenOf("second") }));

    await act(() => sockets[0].end());
    await act(() => pass(5000));

    assert.deepEqual(
      sockets.map(({ protocols }) => protocols[1]),
      ["first", "second"],
    );
  });
}

test("functions among the options are those of the last render", async () => {
  const loaded = [];
  await render(provider({ snapshot: async () => loaded.push("first") }));
  await render(provider({ snapshot: async () => void loaded.push("second") }));

  await receive(sockets[0], CONNECTED);
  await act(() => pass(0));
  await render(provider({}));
  await receive(sockets[0], { type: "gap", from: 8, to: 9, sequence_number: 7 }, message(10));
  await act(() => pass(0));

  assert.deepEqual(loaded, ["second"]);
});

test("the stream is for requests, and exists after the first effect", async () => {
  const streams = [];
  const Component = () => void streams.push(useStream());

  await render(provider({}, createElement(Component)));
  streams
    .at(-1)
    .command("say", "hello")
    .catch(() => {});
  await receive(sockets[0], CONNECTED);

  assert.equal(streams[0], undefined);
  assert.deepEqual(
    sent("command").map(({ name, data }) => [name, data]),
    [["say", "hello"]],
  );
});

test("values and members render, and again after each change", async () => {
  const topics = ["rooms.1"];
  const seen = [];
  const Component = () => {
    const values = useValues("rooms.1");
    const members = useMembers("rooms.1");
    seen.push(values);
    return JSON.stringify([[...values].map(([key, { data }]) => [key, data]), [...members]]);
  };
  const of = (number, key, data, type) => message(number, { topics, key, data, type });
  await render(provider({ topics }, createElement(Component)));
  assert.equal(view.toJSON(), "[[],[]]");

  const values = [of(5, "title", "Tea", "note"), of(6, "alice", { connections: 1 }, "presence")];
  const state = { type: "state", values, has_more: false, sequence_number: 7 };
  await receive(sockets[0], { ...CONNECTED, topics, state: true }, state);
  assert.equal(view.toJSON(), '[[["title","Tea"]],[["alice",{"connections":1}]]]');
  await receive(sockets[0], of(8, "title", "Milk", "note"), of(9, "bob", { connections: 2 }, "presence"));

  assert.equal(view.toJSON(), '[[["title","Milk"]],[["alice",{"connections":1}],["bob",{"connections":2}]]]');
  assert.notEqual(seen.at(-1), seen[0]);
});

test("a server renders without a connection", () => {
  const Component = () => {
    useMessages("chat", () => {});
    return `${useStatus()}, ${typeof useStream()}${useValues("rooms.1").size || ""}`;
  };

  assert.equal(renderToString(provider({}, createElement(Component))), "connecting, undefined");
  assert.equal(sockets.length, 0);
});

test("a hook without a provider says what is missing", () => {
  const other = createUnmissed();

  assert.throws(() => renderToString(createElement(Status)), /put the component into <UnmissedProvider url=/);
  assert.throws(() => renderToString(createElement(other.UnmissedProvider, {}, createElement(Status))), /no stream/);
});

test("two providers of different kinds have a stream each", async () => {
  const other = createUnmissed();
  const Component = () => `${useStatus()}, ${other.useStatus()}`;
  await render(provider({}, createElement(other.UnmissedProvider, { url: "http://b.test" }, createElement(Component))));

  const [first] = sockets.filter(({ url }) => url.includes("server.test"));
  await receive(first, CONNECTED);

  assert.equal(view.toJSON(), "live, connecting");
});
