import type { Send } from '../exchange/chain.ts'

/** Sends attempts to one upstream. */
export type Transport = { readonly send: Send; close(): Promise<void> }
