/** The Vue composables, from the package as npm installs it. `test_package.py` installs it. */

import assert from "node:assert/strict";
import test, { afterEach, beforeEach } from "node:test";

import {
  createUnmissed,
  provideUnmissed,
  useMembers,
  useMessages,
  useStatus,
  useStream,
  useValues,
} from "unmissed/vue";
import { createRenderer, createSSRApp, defineComponent, h, nextTick, reactive, ref } from "vue";
import { renderToString } from "vue/server-renderer";

import { CONNECTED, fakeSockets, message, restoreGlobals, setGlobal, settled } from "./fakes.js";

const URL_OF_SERVER = "http://server.test";

let sockets;
const apps = [];

beforeEach(() => {
  sockets = fakeSockets();
  setGlobal("document", { hidden: false });
});

afterEach(() => {
  for (const app of apps.splice(0)) app.unmount();
  restoreGlobals();
});

/** Renders into nothing: the tests look at what the components hold. */
const { createApp } = createRenderer({
  createElement: () => ({}),
  createText: () => ({}),
  createComment: () => ({}),
  insert() {},
  remove() {},
  setText() {},
  setElementText() {},
  parentNode: () => null,
  nextSibling: () => null,
  patchProp() {},
});

const component = (setup, ...children) =>
  defineComponent({
    setup: () =>
      setup() ??
      (() =>
        h(
          "div",
          children.map((child) => h(child)),
        )),
  });

/** Mounts a component, and waits for what follows. Returns its application. */
async function mount(root) {
  const app = createApp(root);
  app.config.warnHandler = (text) => assert.fail(text);
  apps.push(app);
  app.mount({});
  await settled();
  return app;
}

const provide = (options = {}, url = URL_OF_SERVER) => void provideUnmissed(url, { token: "t", ...options });
const isOpen = ({ closed }) => !closed;
const sent = (type) => sockets.flatMap((socket) => socket.sent).filter((frame) => frame.type === type);

test("components below the provider share a stream, which ends with the provider", async () => {
  const received = [];
  let status;
  const child = component(() => {
    status = useStatus();
    useMessages("chat", ({ sequence_number }) => received.push(sequence_number));
  });
  const app = await mount(component(() => provide(), child));
  assert.equal(status.value, "connecting");

  await sockets[0].receive(CONNECTED, message(8), message(9, { type: "order" }));
  assert.equal(status.value, "live");
  app.unmount();
  apps.pop();

  assert.deepEqual(received, [8]);
  assert.deepEqual(sockets.map(isOpen), [false]);
});

test("the component that provides the stream can use it, too", async () => {
  const received = [];
  let status;
  await mount(
    component(() => {
      provide();
      status = useStatus();
      useMessages("*", ({ sequence_number }) => received.push(sequence_number));
    }),
  );

  await sockets[0].receive(CONNECTED, message(8), message(9, { type: "order" }));

  assert.deepEqual([status.value, received, sockets.length], ["live", [8, 9], 1]);
});

test("a component that is unmounted gets no more messages", async () => {
  const received = [];
  const isShown = ref(true);
  const child = component(() => useMessages("chat", ({ sequence_number }) => received.push(sequence_number)));
  await mount(
    component(() => {
      provide();
      return () => (isShown.value ? h(child) : null);
    }),
  );
  await sockets[0].receive(CONNECTED, message(8));

  isShown.value = false;
  await nextTick();
  await sockets[0].receive(message(9));

  assert.deepEqual(received, [8]);
  assert.deepEqual(sockets.map(isOpen), [true]);
});

for (const [name, topicsOf] of [
  ["a ref that is replaced", () => [ref(["a", "b"]), (topics) => (topics.value = ["b", "c"])]],
  ["an array that is changed", () => [ref(["a", "b"]), ({ value }) => value.splice(0, 2, "b", "c")]],
  [
    "a function of other state",
    () => {
      const state = reactive({ rooms: ["a", "b"] });
      return [() => state.rooms, () => (state.rooms = ["b", "c"])];
    },
  ],
]) {
  test(`other topics are followed on the same connection: ${name}`, async () => {
    const [topics, change] = topicsOf();
    await mount(component(() => provide({ topics })));
    await sockets[0].receive(CONNECTED);

    change(topics);
    await nextTick();

    assert.equal(new URL(sockets[0].url).searchParams.get("topics"), "a,b");
    assert.deepEqual(
      [...sent("follow"), ...sent("unfollow")].map((frame) => frame.topics),
      [["c"], ["a"]],
    );
    assert.equal(sockets.length, 1);
  });
}

test("another address opens another stream, which the handlers and the status follow", async () => {
  const received = [];
  const url = ref(URL_OF_SERVER);
  let status;
  await mount(
    component(() => {
      provide({ topics: ["a"] }, url);
      status = useStatus();
      useMessages("chat", ({ sequence_number }) => received.push(sequence_number));
    }),
  );
  await sockets[0].receive(CONNECTED);

  url.value = new URL("http://other.test");
  await nextTick();
  await settled();
  assert.equal(status.value, "connecting");
  await sockets[1].receive(CONNECTED, message(8));

  assert.deepEqual(sockets.map(isOpen), [false, true]);
  assert.deepEqual([received, status.value, sent("follow")], [[8], "live", []]);
});

test("the stream is for requests", async () => {
  let stream;
  await mount(
    component(
      () => provide(),
      component(() => {
        stream = useStream();
      }),
    ),
  );

  stream.value.command("say", "hello").catch(() => {});
  await sockets[0].receive(CONNECTED);

  assert.deepEqual(
    sent("command").map(({ name, data }) => [name, data]),
    [["say", "hello"]],
  );
});

test("values and members change with messages, the topic, and the stream", async () => {
  const topics = ["rooms.1", "rooms.2"];
  const topic = ref("rooms.1");
  let values, members;
  const child = component(() => {
    values = useValues(topic);
    members = useMembers(() => topic.value);
  });
  const of = (number, room, key, data, type = "note") => message(number, { topics: [room], key, data, type });
  await mount(component(() => provide({ topics }), child));
  const first = values.value;
  const state = { type: "state", values: [of(5, "rooms.1", "title", "Tea")], has_more: false, sequence_number: 7 };

  await sockets[0].receive({ ...CONNECTED, topics, state: true }, state);
  await sockets[0].receive(of(8, "rooms.1", "alice", { connections: 2 }, "presence"));
  assert.deepEqual([first.size, values.value.get("title").data], [0, "Tea"]);
  assert.deepEqual([...members.value], [["alice", { connections: 2 }]]);
  topic.value = "rooms.2";
  await nextTick();
  assert.deepEqual([values.value.size, members.value.size], [0, 0]);
  await sockets[0].receive(of(9, "rooms.2", "title", "Milk"), of(10, "rooms.1", "title", "Beer"));

  assert.equal(values.value.get("title").data, "Milk");
});

test("a server renders without a connection", async () => {
  setGlobal("document", undefined);
  const child = defineComponent({
    setup() {
      const status = useStatus();
      const stream = useStream();
      useMessages("chat", () => {});
      return () => `${status.value}, ${stream.value}`;
    },
  });

  const html = await renderToString(createSSRApp(component(() => provide(), child)));

  assert.match(html, /connecting, undefined/);
  assert.equal(sockets.length, 0);
});

test("a composable without a provider says what is missing", async () => {
  const other = createUnmissed();
  const child = component(() => void useStatus());
  const render = (root) => {
    const app = createSSRApp(root);
    app.config.warnHandler = () => {};
    return renderToString(app);
  };

  await assert.rejects(render(child), /call provideUnmissed\(url\) in this component/);
  await assert.rejects(render(component(() => void other.provideUnmissed(URL_OF_SERVER), child)), /there is no stream/);
});
