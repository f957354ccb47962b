// The server serves unmissed.min.js under this name.
declare module "*/client.js" {
  export const connect: import("../../../src/unmissed/browser/types.js").Connect;
}
