/** How applications in TypeScript use the package. It is compiled, and not run. */

import { connect } from "unmissed";
import { useUnmissed as useInReact } from "unmissed/react";
import type { ClientFrame, Message, Options, ServerFrame, Status, Stream } from "unmissed/types";
import { useUnmissed as useInVue } from "unmissed/vue";

const options: Options = {
  token: async () => "token",
  topics: ["orders"],
  storage: sessionStorage,
  shared: true,
  credentials: "include",
  snapshot: async () => 5,
};

export async function run(): Promise<number> {
  const stream: Stream = connect(location.origin, options);
  const stop: () => void = stream.on("order", (message: Message) => console.log(message.data, message.recovered));
  stream.addEventListener("gap", ({ detail }) => console.log(detail.from, detail.to));
  const status: Status = stream.status;
  const topics: string[] = await stream.follow("a", "b");
  for await (const message of stream) if (message.type === status || topics.includes(message.type)) break;
  await stream.command("say", { text: "hello" });
  stop();
  stream.close();
  return stream.publish({ type: "order", data: { id: 1 }, users: ["alice"] });
}

export function useBoth(): Status[] {
  const { status } = useInReact("/", { ...options, onMessage: (message) => console.log(message.type) });
  return [status, useInVue("/").status.value, useInReact("/").status];
}

export function answerTo(frame: ServerFrame): ClientFrame | undefined {
  if (frame.type === "gap") return { type: "follow", topics: ["orders"], since: frame.from - 1 };
}

// @ts-expect-error  Only the server sends this frame.
export const frame: ClientFrame = { type: "published", id: "1", sequence_number: 1 };
// @ts-expect-error  The status is the stream's own.
connect("/").status = "live";
// @ts-expect-error  A message has a type.
connect("/").publish({ data: 1 });
// @ts-expect-error  There is no such transport.
connect("/", { transports: ["pigeon"] });
