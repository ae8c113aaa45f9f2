/** The pictures of docs/: SCREENSHOTS=../../docs/images npx playwright test screenshots */

import { expect, signIn, test, USER } from './fixtures';

const directory = process.env.SCREENSHOTS ?? '';
test.skip(!directory, 'only on request');

const VIEWPORTS = { phone: { width: 390, height: 780 }, desktop: { width: 1120, height: 660 } };

test('pictures', async ({ newDevice }) => {
  test.setTimeout(180_000);
  for (const device of ['phone', 'tablet'] as const) {
    await signIn(await (await newDevice(device)).newPage(), USER);
  }
  for (const [size, viewport] of Object.entries(VIEWPORTS)) {
    for (const colorScheme of ['light', 'dark'] as const) {
      const page = await (await newDevice('laptop', { viewport, colorScheme })).newPage();
      const take = async (name: string) => {
        await page.screenshot({ path: `${directory}/react-${name}-${size}-${colorScheme}.png`, animations: 'disabled' });
      };
      await page.goto('/login');
      await expect(page.getByRole('link', { name: 'Continue' })).toBeVisible();
      if (colorScheme === 'light') await take('sign-in');
      await signIn(page, USER);
      // Some of the ring has gone.
      await page.waitForTimeout(2_000);
      await take('account');
      await page.goto('/devices');
      await expect(page.getByText('This device')).toBeVisible();
      await take('devices');
      if (size === 'phone' || colorScheme === 'dark') {
        await page.goto('/history');
        await expect(page.getByRole('heading', { name: 'History' })).toBeVisible();
        await take('history');
      }
      if (size === 'desktop' && colorScheme === 'light') {
        await page.goto('/invoices');
        await expect(page.getByRole('heading', { name: 'Invoices' })).toBeVisible();
        await take('invoices');
      }
      await page.getByRole('button', { name: 'Sign out', exact: true }).click();
      await expect(page.getByRole('heading', { name: 'Sign in' })).toBeVisible();
    }
  }
});
