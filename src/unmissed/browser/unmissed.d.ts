import type { Connect } from "./types.js";

export type * from "./types.js";

export declare const connect: Connect;
