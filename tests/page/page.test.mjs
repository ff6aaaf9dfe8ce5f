// What people do with the page, in a real browser, before the demo and before a proxy with callers.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { assertSound, heading, launch, open } from './browser.mjs';

const { DEMO, PROXY, SIMULATOR, KEY } = process.env;
const DOCUMENTED = '4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04';
const NAME = 'DT DEMO CSP CUSTOMER 005';
const LIVELY = 'Müller & Söhne S.A. 0002';

let browser;
before(async () => { browser = await launch(); });
after(() => browser.close());

// Does something in a tab of its own, and looks through the tab afterwards.
async function inTab(options, work) {
  const tab = await open(browser, options);
  try {
    await work(tab.page, tab);
    // Where no script runs, axe does not either; what is shown is the same.
    if (options.javaScriptEnabled === false) assert.deepEqual(tab.faults, []);
    else await assertSound(tab);
  } finally {
    await tab.close();
  }
}

// Goes to the overview, which has trends once the demo has fetched its past dates.
async function overview(page) {
  await page.goto(DEMO);
  const end = Date.now() + 60_000;
  while (await page.getByText('Unused, last 12 dates').count() === 0) {
    assert.ok(Date.now() < end, await page.locator('main').innerText());
    await page.reload();
  }
}

// Goes to a customer, which has changes once the demo has fetched its past dates.
async function withChanges(page) {
  const end = Date.now() + 60_000;
  do {
    assert.ok(Date.now() < end, 'changes are shown');
    await page.goto(`${DEMO}/?customer=${encodeURIComponent(LIVELY)}`);
  } while (await page.getByRole('heading', { name: /^Changes since/ }).count() === 0);
}

// Nothing is scrolled sideways, and every text is inside its cell.
async function assertFits(page, width) {
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width, page.url());
  const outside = await page.locator('table :is(th, td):visible').evaluateAll((cells) => cells
    .filter((cell) => cell.scrollWidth > cell.clientWidth)
    .map((cell) => cell.textContent));
  assert.deepEqual(outside, [], page.url());
}

async function faults(body) {
  const answer = await fetch(`${SIMULATOR}/_simulator/faults`, { method: 'PUT', body: JSON.stringify(body) });
  assert.equal(answer.ok, true, await answer.text());
}

describe('before the demo', { timeout: 120_000 }, () => {
  it('lists customers, cuts the list to what is typed, and shows the one that is chosen', () =>
    inTab({}, async (page, tab) => {
      await overview(page);
      const items = page.locator('#customers tr');
      assert.equal(await items.count(), 26);
      assert.ok(await page.locator('#customers .trend path').count() > 20);
      await assertSound(tab);

      for (const [typed, shown] of [['lodz', 4], ['CAFÉ', 2], ['sohne', 2]]) {
        await page.getByLabel('Customer', { exact: true }).fill(typed);
        assert.equal(await page.locator('#count').innerText(), `${shown} of 26 shown`);
      }
      assert.equal(await page.locator('#customers tr:visible').count(), 2);
      await page.getByRole('link', { name: LIVELY }).click();

      assert.equal(await heading(page), LIVELY);
      assert.match(
        await page.locator('.standing').innerText(),
        /^Checked (just now|\d+ \w+ ago), next check within \d+ min\. Microsoft’s newest count is of \d{4}-\d\d-\d\d\.$/,
      );
      assert.ok(await page.locator('.bars').count() > 3);
      assert.match(await page.locator('.bars').first().innerText(), /\d+%\s+\d+ of \d+/);
    }));

  it('shows the trend of a customer, its changes, and its unused licences', () =>
    inTab({}, async (page) => {
      await withChanges(page);
      const chart = page.locator('.picture img');
      await chart.evaluate((image) => image.decode());
      assert.equal(await chart.evaluate((image) => image.naturalWidth), 480);
      assert.match(await page.getByRole('region', { name: /^Changes since/ }).innerText(), /[+−]\d+/);
      assert.match(await page.getByRole('region', { name: 'Unused licences' }).innerText(), /Total\s+\d+ of \d+/);
    }));

  it('sorts the customers, and says so', () =>
    inTab({}, async (page) => {
      await page.goto(DEMO);
      const names = () => page.locator('#customers th').allInnerTexts();
      const byUnused = await names();
      const sorted = () => page.locator('thead th[aria-sort]').innerText();
      assert.match(await sorted(), /^Unused/);
      await page.getByRole('link', { name: 'Customer', exact: true }).click();
      assert.match(await sorted(), /^Customer/);
      assert.notDeepEqual(await names(), byUnused);
      const byName = await names();
      await page.getByRole('link', { name: 'Customer', exact: true }).click();
      assert.deepEqual(await names(), byName.reverse());
    }));

  it('goes to another date and back', () =>
    inTab({}, async (page) => {
      await page.goto(`${DEMO}/?customer=${encodeURIComponent(LIVELY)}`);
      const newest = await page.locator('.lead').innerText();
      await page.getByRole('link', { name: /^Earlier/ }).click();
      const earlier = await page.getByLabel(/^Processed on/).inputValue();
      assert.ok((await page.locator('.lead').innerText()).includes(earlier));
      await page.getByRole('link', { name: 'Newest' }).click();
      assert.equal(await page.locator('.lead').innerText(), newest);

      // As a date picker does: the field changes at once, without a key.
      await page.getByLabel(/^Processed on/).fill(earlier);
      await page.waitForURL((url) => url.searchParams.get('date') === earlier);
    }));

  it('gives the line, the table and the chart of exactly this view', () =>
    inTab({}, async (page) => {
      await page.goto(`${DEMO}/?customer=${DOCUMENTED}&date=2017-03-09`);
      const line = await page.locator('#curl').innerText();
      assert.equal(line, `curl -s '${DEMO}/v1/customers/${DOCUMENTED}/usage?processedDate=2017-03-09'`);
      await page.getByRole('button', { name: 'Copy' }).click();
      await page.getByText(/^(Copied|Selected)/).waitFor();

      const download = page.waitForEvent('download');
      await page.getByRole('link', { name: 'CSV file' }).click();
      assert.match((await download).suggestedFilename(), /^usage.*\.csv$/);
      const chart = await page.getByRole('link', { name: 'Chart' }).getAttribute('href');
      assert.equal((await fetch(new URL(chart, DEMO))).headers.get('content-type'), 'image/svg+xml');
    }));

  it('shows the chart within a page of another origin', async () => {
    const tab = await open(browser);
    await tab.page.setContent(`<img alt="" src="${DEMO}/v1/customers/${DOCUMENTED}/usage/chart.svg">`);
    await tab.page.locator('img').evaluate((image) => image.decode());
    assert.equal(await tab.page.locator('img').evaluate((image) => image.naturalWidth), 720);
    await tab.close();
  });

  it('does all of it without a script', () =>
    inTab({ javaScriptEnabled: false }, async (page) => {
      await page.goto(DEMO);
      await page.getByLabel('Customer', { exact: true }).fill('contoso');
      await page.getByRole('button', { name: 'Show' }).click();
      assert.equal(await heading(page), 'Customers like “contoso”');
      await page.getByRole('link', { name: 'Contoso Inc. 0007' }).click();
      assert.equal(await heading(page), 'Contoso Inc. 0007');
      await page.getByRole('link', { name: /^Earlier/ }).click();
      assert.equal(await heading(page), 'Contoso Inc. 0007');
      assert.ok((await page.locator('#curl').innerText()).includes(`${DEMO}/v1/customers/`));
      assert.equal(await page.getByRole('button', { name: 'Copy' }).count(), 0);
    }));

  it('needs no pointer', () =>
    inTab({}, async (page) => {
      await page.goto(DEMO);
      await page.keyboard.press('Tab');
      assert.equal(await page.locator(':focus').innerText(), 'Skip to the content');
      await page.keyboard.press('Enter');
      assert.equal(await page.locator(':focus').getAttribute('id'), 'main');
      // Links of the box about missing data and of the headings come before.
      for (let pressed = 0; pressed < 12 && !(await page.locator('#customers a:focus').count()); pressed += 1) {
        await page.keyboard.press('Tab');
      }
      assert.equal(await page.locator('#customers a').first().evaluate((link) => link === document.activeElement), true);
      const outline = await page.locator(':focus').evaluate((focused) => getComputedStyle(focused).outlineStyle);
      assert.equal(outline, 'solid', 'where one is can be seen');

      await page.goto(DEMO);
      for (const _ of ['skip', 'brand', 'customer']) await page.keyboard.press('Tab');
      await page.keyboard.type('demo csp');
      await page.keyboard.press('Enter');
      await page.waitForURL(/customer=/);
      assert.equal(await heading(page), NAME);
    }));

  for (const [state, query, status, told] of [
    ['a name that nobody has', '?customer=Nobody', 404, 'Unknown customer'],
    ['a date that is none', `?customer=${DOCUMENTED}&date=2017-02-30`, 400, 'Invalid processed date'],
    ['a date without data', `?customer=${DOCUMENTED}&date=2017-03-01`, 404, 'No data for this date'],
    ['a parameter that means nothing', '?size=2', 400, 'Unknown query parameter'],
  ]) {
    it(`explains ${state}`, () =>
      inTab({}, async (page) => {
        const answer = await page.goto(`${DEMO}/${query}`);
        assert.equal(answer.status(), status);
        assert.equal(await heading(page), told);
        assert.ok((await page.getByRole('contentinfo').innerText()).includes(answer.headers()['x-request-id']));
        await page.getByRole('link', { name: 'All customers' }).click();
        assert.equal(await heading(page), 'All customers');
      }));
  }

  for (const width of [320, 360]) {
    it(`fits a telephone of ${width} pixels`, () =>
      inTab({ viewport: { width, height: 740 } }, async (page) => {
        await withChanges(page);
        for (const query of ['', ...[LIVELY, NAME].map((name) => `?customer=${encodeURIComponent(name)}`)]) {
          await page.goto(`${DEMO}/${query}`);
          await assertFits(page, width);
        }
      }));
  }
});

describe('before a proxy with callers', { timeout: 60_000 }, () => {
  const known = { httpCredentials: { username: 'anybody', password: KEY } };

  it('tells a stranger nothing', () =>
    inTab({ httpCredentials: { username: 'anybody', password: 'guessed' } }, async (page) => {
      const answer = await page.goto(`${PROXY}/?customer=${DOCUMENTED}`);
      assert.equal(answer.status(), 401);
      assert.equal(await heading(page), 'Authentication required');
      assert.ok(!(await page.content()).includes(NAME));
    }));

  it('shows a caller its own customers and no others', () =>
    inTab(known, async (page, tab) => {
      await page.goto(PROXY);
      assert.deepEqual(await page.locator('#customers a').allInnerTexts(), [NAME]);
      await page.locator('#customers').getByRole('link', { name: NAME }).click();
      assert.equal(await heading(page), NAME);
      await assertSound(tab);

      const other = await page.goto(`${PROXY}/?customer=1be53d03-c95d-4b28-9f8f-587fd7906eae`);
      assert.equal(other.status(), 403);
      assert.equal(await heading(page), 'Not allowed');
    }));

  it('fits a telephone with costs too', () =>
    inTab({ ...known, viewport: { width: 320, height: 740 } }, async (page) => {
      for (const query of ['', `?customer=${DOCUMENTED}`]) {
        await page.goto(`${PROXY}/${query}`);
        assert.match(await page.locator('main').innerText(), /EUR 61,728\.35/);
        await assertFits(page, 320);
      }
    }));

  it('says so while Partner Center is down', () =>
    inTab(known, async (page) => {
      await faults({ status: 429, retry_after: '120' });
      const answer = await page.goto(`${PROXY}/?customer=${DOCUMENTED}&date=2017-03-08`);
      await faults({});
      assert.equal(answer.status(), 503);
      assert.equal(await heading(page), 'Throttled by Partner Center');
      assert.match(await page.locator('.problem').innerText(), /Try again after \d+ (min|s)\./);
    }));
});

describe('pictures of it', { skip: !process.env.SCREENSHOTS && 'UPDATE_SCREENSHOTS=1 renews them' }, () => {
  for (const colorScheme of ['light', 'dark']) {
    it(`in ${colorScheme}`, async () => {
      const { page, close } = await open(browser, { colorScheme, viewport: { width: 960, height: 820 } });
      await overview(page);
      await page.screenshot({ path: `${process.env.SCREENSHOTS}/page-${colorScheme}.png` });
      await close();
    });
  }
});
