// A browser, and what is held against every page that it shows.

import assert from 'node:assert/strict';
import axe from 'axe-core';
import { chromium } from 'playwright-core';

const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];

export const launch = () => chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });

// A tab of its own, without cookies or passwords of others. What goes wrong in it is kept.
export async function open(browser, options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const faults = [];
  page.on('console', (message) => {
    // A browser also logs the status of the very page that it was sent to.
    const own = message.location().url === page.url() && /status of [45]/.test(message.text());
    if (['error', 'warning'].includes(message.type()) && !own) faults.push(message.text());
  });
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('request', (request) => {
    const to = new URL(request.url());
    if (page.url().startsWith('http') && to.origin !== new URL(page.url()).origin) faults.push(`asked ${to}`);
  });
  return { page, faults, close: () => context.close() };
}

// Nothing was logged, no other host was asked, and axe has no objection, in either scheme.
export async function assertSound({ page, faults }) {
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    await page.evaluate(axe.source);
    const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ['violations'] }));
    const told = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => node.html).join(' ')}`);
    assert.deepEqual(told, [], `${page.url()} in ${colorScheme}`);
  }
  assert.deepEqual(faults, [], page.url());
}

export const heading = (page) => page.getByRole('heading', { level: 1 }).innerText();
