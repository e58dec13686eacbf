import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    // real sockets and real binaries on small machines: more files at once only makes timings worse
    maxWorkers: 2,
    // against hanging only, generous to busy machines: what has to be quick says so itself
    testTimeout: 30_000,
    hookTimeout: 60_000,
    teardownTimeout: 5_000,
    // the exact counts for whoever runs the tests in a script
    reporters: process.env['TEST_REPORT'] === undefined ? ['default'] : ['default', ['json', { outputFile: process.env['TEST_REPORT'] }]]
  }
})
