import { defineConfig } from 'vitest/config';

/** What ends a test that hangs.  All take less than a second on a machine that has nothing else to do. */
const limits = { testTimeout: 60_000, hookTimeout: 60_000 };

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
          env: { SESSION_BACKEND_TIMEOUT: '60000' },
          setupFiles: ['test/next/setup.ts'],
        },
      },
    ],
  },
});
