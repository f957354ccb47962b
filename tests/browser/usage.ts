/** How applications in TypeScript use the package. It is compiled, and not run. */

import { connect, type Message, type Messages, type Options, type Status, type Stream } from "unmissed";
import { createElement } from "react";
import { createUnmissed as createForReact, useMessages as useReactMessages, useStream as useReactStream } from "unmissed/react";
import type { ClientFrame, RequestError, ServerFrame, StreamEvents } from "unmissed/types";
import { createUnmissed as createForVue, provideUnmissed, useStatus as useVueStatus } from "unmissed/vue";
import { ref } from "vue";

/** Compiles if its type parameter is the type `true`. */
declare function is<_ extends true>(): void;
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;

interface Order {
  id: number;
  item: string;
}

interface Events {
  "order.placed": Order;
  "order.paid": { cents: number };
}

interface Commands {
  "cart.add": { data: { name: string }; result: { total: number } };
  "cart.clear": { result: null };
  "cart.page": { data?: number; result: string[] };
  "cart.import": { data: unknown; result: unknown };
}

const options: Options = {
  token: async () => "token",
  topics: ["orders"],
  storage: sessionStorage,
  shared: true,
  credentials: "include",
  snapshot: async ({ fetch, signal }) => Number(await (await fetch("/orders", { signal })).text()),
  onMessage: ({ type, data }) => is<Same<[string, unknown], [typeof type, typeof data]>>(),
};

// Without declared events.

export async function undeclared(): Promise<number> {
  const stream: Stream = connect(location.origin, options);
  const stop: () => void = stream.on("order", (message: Message) => console.log(message.data, message.recovered));
  stream.on("order", ({ data }) => is<Same<typeof data, unknown>>());
  stream.on("order", ({ data }: { data: Order }) => console.log(data.item));
  stream.on("order", ({ data, room }: { data: Order; room: string }) => console.log(data.item, room));
  stream.on("order", ({ room }) => is<Same<typeof room, unknown>>());
  stream.on<Order>("order", ({ data }) => console.log(data.item));
  stream.on("*", (message: Messages) => console.log(message.type));
  const status: Status = stream.status;
  const topics: string[] = await stream.follow("a", "b");
  for await (const message of stream) if (message.type === status || topics.includes(message.type)) break;
  const { total }: { total: number } = await stream.command("cart.add", { name: "tea" });
  const { length } = await stream.command<string>("cart.name");
  stop();
  stream.close();
  const target: EventTarget = stream;
  return stream.publish({ type: String(target), data: { id: total }, users: ["alice"], room: length });
}

export async function wrongWithoutDeclarations(stream: Stream): Promise<void> {
  // @ts-expect-error  The data is unknown.
  stream.on("order", ({ data }) => console.log(data.item));
  // @ts-expect-error  The result is unknown.
  console.log((await stream.command("cart.add")).total);
  // @ts-expect-error  The status is the stream's own.
  stream.status = "live";
  // @ts-expect-error  A message has a type.
  await stream.publish({ data: 1 });
  // @ts-expect-error  There is no such transport.
  connect("/", { transports: ["pigeon"] });
  // @ts-expect-error  There is no such option.
  connect("/", { topic: ["orders"] });
}

export function withoutAnyChecks(stream: Stream<any, any>): void {
  stream.on("order", ({ data, room }) => console.log(data.item.name, room.name));
}

// With declared events.

export async function declared(): Promise<void> {
  const stream = connect<Events, Commands>(new URL(location.origin), {
    onMessage: (message) => message.type === "order.paid" && message.data.cents,
  });
  stream.on("order.placed", (message) => is<Same<typeof message, Message<"order.placed", Order>>>());
  stream.on("order.placed", ({ data: { item } }) => is<Same<typeof item, string>>());
  stream.on("*", ({ type, data }) => {
    if (type === "order.paid") is<Same<typeof data, { cents: number }>>();
    else is<Same<typeof data, Order>>();
  });
  for await (const message of stream) if (message.type === "order.placed") console.log(message.data.item);
  await stream.publish({ type: "order.paid", data: { cents: 5 }, topics: ["orders"] });
  const number = await stream.publish({ type: "order.paid", data: { cents: 5 }, key: "bill", append: true });
  is<Same<typeof number, number>>();
  await stream.publish({ type: "order.paid", key: "bill", deleted: true, topics: ["orders"] });
  const nothing = await stream.publish({ type: "order.paid", data: { cents: 5 }, ephemeral: true });
  is<Same<typeof nothing, void>>();
  const values = stream.state("orders");
  for (const [key, value] of values) {
    is<Same<typeof key, string>>();
    if (value.type === "order.paid") console.log(value.data.cents, value.pieces?.length);
  }
  const stop = values.subscribe(() => console.log(values.loaded, stream.state().size));
  stop();
  console.log(stream.members<{ away: boolean }>("rooms.1").get("alice")?.state?.away);
  await stream.setPresence("rooms.1", { away: true });
  const added = await stream.command("cart.add", { name: "tea" });
  is<Same<typeof added, { total: number }>>();
  is<Same<Awaited<ReturnType<typeof stream.unfollow>>, string[]>>();
  await stream.command("cart.clear");
  await stream.command("cart.page");
  await stream.command("cart.page", 5);
  await stream.command("cart.import", 5);
  const events = connect<Events>(location.origin);
  events.on("order.paid", ({ data }) => console.log(data.cents));
  const commands = connect<{}, Commands>(location.origin);
  commands.on("any", ({ data }: { data: Order }) => console.log(data.item));
  await commands.command("cart.clear");
  connect<Record<string, Order>>("/").on("any", ({ data }) => console.log(data.item));
}

export async function wrong(stream: Stream<Events, Commands>): Promise<void> {
  // @ts-expect-error  Only the stream changes the map.
  stream.state("orders").clear();
  // @ts-expect-error  A message that ends a value has its key.
  await stream.publish({ type: "order.paid", deleted: true });
  // @ts-expect-error  There is no such event.
  stream.on("order.payed", () => {});
  // @ts-expect-error  There is no such field.
  stream.on("order.placed", ({ data }) => console.log(data.itme));
  // @ts-expect-error  There is no such field of a message.
  stream.on("order.placed", ({ dta }) => console.log(dta));
  // @ts-expect-error  The data is something else.
  stream.on("order.placed", ({ data }: { data: string }) => console.log(data));
  // @ts-expect-error  The data depends on the type.
  stream.on("*", ({ data }) => console.log(data.cents));
  // @ts-expect-error  There is no such event.
  await stream.publish({ type: "order.payed", data: { cents: 5 } });
  // @ts-expect-error  This is the data of another event.
  await stream.publish({ type: "order.paid", data: { id: 5, item: "tea" } });
  // @ts-expect-error  The data is missing.
  await stream.publish({ type: "order.paid" });
  // @ts-expect-error  Without the topics, the message would be for everyone.
  await stream.publish({ type: "order.paid", data: { cents: 5 }, topic: ["orders"] });
  // @ts-expect-error  There is no such command.
  await stream.command("cart.ad", { name: "tea" });
  // @ts-expect-error  There is no such parameter.
  await stream.command("cart.add", { nmae: "tea" });
  // @ts-expect-error  The data is missing.
  await stream.command("cart.add");
  // @ts-expect-error  This command takes no data.
  await stream.command("cart.clear", 5);
  // @ts-expect-error  There is no such field of the result.
  console.log((await stream.command("cart.add", { name: "tea" })).totl);
}

// The events of a stream.

export function listen(stream: Stream<Events>): void {
  stream.addEventListener("gap", ({ detail: { from, to } }) => is<Same<number, typeof from | typeof to>>());
  stream.addEventListener("reset", ({ detail }) => is<Same<typeof detail.epoch, string>>());
  stream.addEventListener("status", ({ detail }) => is<Same<typeof detail.status, Status>>());
  stream.addEventListener("status", ({ detail }) => is<Same<typeof detail.code, number | undefined>>());
  stream.addEventListener("refused", ({ detail }) => console.log(detail.code.toFixed(), detail.reason.trim()));
  stream.addEventListener("error", ({ detail }) => console.log(detail.during === "token", detail.error));
  stream.addEventListener("snapshot", ({ detail }) => console.log(detail.status === "loaded", detail.number));
  const ended = ({ detail }: StreamEvents["unauthorized"]) => console.log(detail.code, detail.reason);
  stream.addEventListener("unauthorized", ended, { once: true });
  stream.removeEventListener("unauthorized", ended);
  // @ts-expect-error  There is no such event.
  stream.addEventListener("gpa", () => {});
  // @ts-expect-error  There is no such field.
  stream.addEventListener("gap", ({ detail }) => console.log(detail.form));
  stream.publish({ type: "order.paid", data: { cents: 5 } }).catch((error: RequestError) => error.code + 1);
}

// React and Vue.

const react = createForReact<Events, Commands>();

export function ReactOrders(): ReturnType<typeof react.UnmissedProvider> {
  react.useMessages("order.placed", ({ data }) => is<Same<typeof data, Order>>());
  react.useMessages("*", (message) => message.type === "order.paid" && message.data.cents);
  // @ts-expect-error  There is no such event.
  react.useMessages("order.payed", () => {});
  // @ts-expect-error  There is no such field.
  react.useMessages("order.placed", ({ data }) => console.log(data.itme));
  useReactMessages("any", ({ data }: { data: Order }) => console.log(data.item));
  // @ts-expect-error  The stream does not exist before the first effect.
  void useReactStream().close;
  void react.useStream()?.command("cart.add", { name: "tea" });
  const status: Status = react.useStatus();
  // @ts-expect-error  The address is missing.
  createElement(react.UnmissedProvider, { token: "token" });
  return createElement(react.UnmissedProvider, { url: new URL("/", location.href), token: "t", children: status });
}

const vue = createForVue<Events, Commands>();

export function setUpVue(): void {
  const topics = ref(["orders"]);
  vue.provideUnmissed(() => location.origin, { token: async () => "token", topics });
  vue.useMessages("order.placed", ({ data }) => is<Same<typeof data, Order>>());
  // @ts-expect-error  There is no such event.
  vue.useMessages("order.payed", () => {});
  void vue.useStream().value?.command("cart.add", { name: "tea" });
  const status: Status = useVueStatus().value;
  provideUnmissed(status, { topics: ["orders"] });
}

// Frames.

export function answerTo(frame: ServerFrame): ClientFrame | undefined {
  if (frame.type === "gap") return { type: "follow", topics: ["orders"], since: frame.from - 1 };
}

// @ts-expect-error  Only the server sends this frame.
export const frame: ClientFrame = { type: "published", id: "1", sequence_number: 1 };
