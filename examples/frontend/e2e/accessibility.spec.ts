import axe from 'axe-core';
import { expect, signIn, test, USER } from './fixtures';

const VIEWPORTS = { phone: { width: 390, height: 844 }, desktop: { width: 1200, height: 760 } };

for (const [size, viewport] of Object.entries(VIEWPORTS)) {
  for (const colorScheme of ['light', 'dark'] as const) {
    test(`no serious issue on a ${size}, ${colorScheme}`, async ({ newDevice }) => {
      // Evaluated, not loaded: the page's policy lets no foreign script in.
      const page = await (await newDevice('laptop', { viewport, colorScheme })).newPage();
      const check = async (name: string) => {
        await page.evaluate(axe.source);
        const { violations } = await page.evaluate(() => (window as unknown as { axe: typeof axe }).axe.run());
        const grave = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
        expect(grave.map(({ id, nodes }) => `${name}: ${id}: ${nodes[0]?.html ?? ''}`)).toEqual([]);
      };
      await page.goto('/login?reason=expired');
      await check('/login');
      await signIn(page, USER);
      for (const path of ['/account', '/invoices', '/devices', '/history']) {
        await page.goto(path);
        await expect(page.getByRole('heading', { level: 1 })).toBeVisible();
        await check(path);
      }
    });
  }
}

test('everything can be reached by the keyboard', async ({ signedIn: page }) => {
  const names: string[] = [];
  for (let n = 0; n < 12; n++) {
    await page.keyboard.press('Tab');
    names.push(await page.evaluate(() => document.activeElement?.textContent.trim() ?? ''));
  }
  for (const name of ['Account', 'Devices', 'History', 'Sign out', 'Extend']) expect(names).toContain(name);
});
