/** The pictures of docs/react.md: SCREENSHOTS=../../docs/images npx playwright test screenshots */

import { expect, signIn, test, USER } from './fixtures';

const directory = process.env.SCREENSHOTS ?? '';
test.skip(!directory, 'only on request');

const VIEWPORTS = { phone: { width: 390, height: 780 }, desktop: { width: 1120, height: 600 } };

const PICTURES = [
  ['desktop', 'light', ['account', 'devices']],
  ['desktop', 'dark', ['account', 'invoices']],
  ['phone', 'light', ['account', 'history']],
  ['phone', 'dark', ['account', 'devices']],
] as const;

test('pictures', async ({ newDevice }) => {
  const first = await (await newDevice()).newPage();
  await signIn(first, USER, '/devices');
  await first.getByRole('button', { name: 'Sign out everywhere' }).click();
  await expect(first.getByRole('heading', { name: 'Sign in' })).toBeVisible();
  for (const device of ['phone', 'tablet'] as const) {
    await signIn(await (await newDevice(device)).newPage(), USER);
  }
  for (const [size, colorScheme, names] of PICTURES) {
    const page = await (await newDevice('laptop', { viewport: VIEWPORTS[size], colorScheme })).newPage();
    await page.clock.install();
    await signIn(page, USER);
    for (const name of names) {
      await page.goto(`/${name}`);
      await expect(page.getByRole('heading', { level: 1 })).toHaveText(new RegExp(name, 'i'));
      // Some of the time has gone.
      await page.clock.runFor(8 * 60_000);
      const path = `${directory}/react-${name}-${size}-${colorScheme}.png`;
      await page.screenshot({ path, animations: 'disabled' });
    }
    await page.getByRole('button', { name: 'Sign out', exact: true }).click();
    await expect(page.getByRole('heading', { name: 'Sign in' })).toBeVisible();
  }
});
