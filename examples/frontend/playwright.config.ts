import { defineConfig, devices } from '@playwright/test';

// Browsers bind sessions to devices over HTTPS alone, and the headless shell never does.
const bound = process.env.APP_URL?.startsWith('https:');

/** The stack is running already, started by scripts/example.sh; EXAMPLE_URL says where. */
export default defineConfig({
  testDir: 'e2e',
  ...(bound ? { testMatch: 'device.spec.ts' } : { testIgnore: 'device.spec.ts' }),
  outputDir: 'test-results',
  // What ends a test that hangs.  A few seconds are usual, on a machine that has nothing else to do.
  timeout: 240_000,
  expect: { timeout: 60_000 },
  // One at a time: all tests are the same user, and some sign out everywhere.
  workers: 1,
  forbidOnly: true,
  reporter: './e2e/reporter.ts',
  use: {
    ...devices['Desktop Chrome'],
    baseURL: process.env.EXAMPLE_URL ?? 'http://127.0.0.1:3000',
    locale: 'en-GB',
    timezoneId: 'UTC',
    trace: 'off',
    launchOptions: {
      // Debian's, found by its usual name; nothing is downloaded.
      executablePath: process.env.CHROMIUM ?? (bound ? '/usr/bin/chromium' : '/usr/bin/chromium-headless-shell'),
      args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'],
    },
  },
});
