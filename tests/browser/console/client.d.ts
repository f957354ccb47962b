// The server serves unmissed.min.js under this name. The console shows any data.
declare module "*/client.js" {
  export function connect(
    url: string,
    options?: import("../../../src/unmissed/browser/types.js").Options,
  ): import("../../../src/unmissed/browser/types.js").Stream<any, any>;
}
