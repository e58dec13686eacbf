import { expect } from 'vitest'

/** The outcome of a background operation, asked for until it has ended; each answer takes a moment of its own, so this does not spin. */
export async function outcomeAt(sidecar: { readonly dataUrl: string }, location: string | null): Promise<Record<string, unknown>> {
  for (let asked = 0; asked < 50_000; asked++) {
    const answer = await fetch(sidecar.dataUrl + location)
    const document = (await answer.json()) as Record<string, unknown>
    if (answer.status === 200) return document
    expect(answer.status).toBe(202)
  }
  throw new Error('the operation did not end')
}
