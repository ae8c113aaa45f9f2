import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'browser',
          environment: 'jsdom',
          environmentOptions: { jsdom: { url: 'https://app.test/invoices?page=2' } },
          include: ['test/*.test.{ts,tsx}'],
          setupFiles: ['test/support/setup.ts'],
        },
      },
      {
        test: {
          name: 'server',
          environment: 'node',
          include: ['test/next/*.test.ts'],
          setupFiles: ['test/next/setup.ts'],
        },
      },
    ],
  },
});
