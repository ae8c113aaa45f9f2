import { defineConfig } from 'vitest/config';

/**
 * Milliseconds after which a test that hangs is ended.  All take less than a second on a machine that has nothing
 * else to do, and a hundred times that where ten others want each processor.
 */
const limit = 300_000;
const limits = { testTimeout: limit, hookTimeout: limit };

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'browser',
          ...limits,
          environment: 'jsdom',
          environmentOptions: { jsdom: { url: 'https://app.test/invoices?page=2' } },
          include: ['test/*.test.{ts,tsx}'],
          setupFiles: ['test/support/setup.ts'],
        },
      },
      {
        test: {
          name: 'server',
          ...limits,
          environment: 'node',
          include: ['test/next/*.test.ts'],
          // As long as a test has, for the backend that it plays.
          env: { SESSION_BACKEND_TIMEOUT: String(limit) },
          setupFiles: ['test/next/setup.ts'],
        },
      },
    ],
  },
});
