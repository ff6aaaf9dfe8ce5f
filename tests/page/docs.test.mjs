// The documentation at /docs, in a real browser: it loads by what this service has, and tries it.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { launch, open } from './browser.mjs';

const { DEMO, PROXY, KEY } = process.env;

let browser;
before(async () => { browser = await launch(); });
after(() => browser.close());

// Tries the usage of the customer in the example, and gives the status that is shown.
async function tryUsage(page) {
  const operation = page.locator('[id$="-getCustomerUsage"]');
  await operation.locator('.opblock-summary-control').first().click();
  const execute = operation.locator('button.execute');
  const tryOut = operation.locator('button.try-out__btn');
  await execute.or(tryOut).first().waitFor();
  if (!(await execute.isVisible())) await tryOut.click();
  await execute.click();
  const status = operation.locator('.live-responses-table .response-col_status').nth(1);
  return (await status.innerText()).trim();
}

describe('the documentation', { timeout: 120_000 }, () => {
  it('names every operation, follows its reader’s scheme, and tries one, with nothing from elsewhere', async () => {
    const { page, faults, close } = await open(browser);
    await page.goto(`${DEMO}/docs`);
    await page.locator('.opblock').first().waitFor();
    const { paths } = await (await fetch(`${DEMO}/openapi.json`)).json();
    const operations = Object.values(paths).flatMap((item) => Object.keys(item).filter((key) => key === 'get'));
    assert.equal(await page.locator('.opblock').count(), operations.length, 'each once');
    for (const colorScheme of ['dark', 'light']) {
      await page.emulateMedia({ colorScheme });
      const ink = await page.locator('.info .title').evaluate((title) => getComputedStyle(title).color);
      assert.equal(Number(ink.match(/\d+/)[0]) > 128, colorScheme === 'dark', `${colorScheme}: ${ink}`);
    }

    assert.match(await tryUsage(page), /^200/);
    assert.deepEqual(faults, []);
    await close();
  });

  it('tries it in the name of whoever signed in', async () => {
    const { page, faults, close } = await open(browser);
    await page.goto(`${PROXY}/docs`);
    await page.getByRole('button', { name: 'Authorize' }).first().click();
    const key = page.locator('.auth-container').filter({ hasText: 'X-Api-Key' });
    await key.getByRole('textbox').fill(KEY);
    await key.getByRole('button', { name: /^(Authorize|Apply)/ }).click();
    await page.locator('.close-modal').click();

    assert.match(await tryUsage(page), /^200/);
    assert.deepEqual(faults, []);
    await close();
  });
});
