/** What the origin answers: every subject has to hand on exactly this. */

export const SMALL_BODY = JSON.stringify({
  id: '6f1c2c1e-93ab-4c55-8e0b-0d5a7b0f4a11',
  type: 'article',
  title: 'A small answer, as most answers of an API are',
  author: { id: 17, name: 'A. Writer' },
  tags: ['news', 'local', 'weather'],
  published: '2026-06-01T08:30:00Z',
  words: 412
})

export const LARGE_BYTES = 1_000_000

/** Paths below this one need the token; the others are open, for peers that know no tokens. */
export const AUTHORIZED_PREFIX = '/authorized/'
export const OPEN_PREFIX = '/plain/'
export const BENCH_TOKEN = 'bench-token-which-is-about-as-long-as-a-short-opaque-token-is'

export const SMALL = 'small'
export const LARGE = 'large'
export const CACHED = 'cached/1'
