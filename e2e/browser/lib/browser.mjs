// A browser with nothing of its own: no profile, no calls home; and a page that remembers whatever goes wrong in it.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { SCREENSHOTS, SERVER, browserPath } from './env.mjs';

const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
];
const SIZE = { width: 1440, height: 900 };
/** Asking who is signed in, before anybody is. */
const EXPECTED = /\/api\/(v1\/user\/whoami|auth\/refresh)$/;

export async function open() {
  const profile = mkdtempSync(join(tmpdir(), 'perses-browser-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: browserPath(), headless: true, args: FLAGS, viewport: SIZE, acceptDownloads: false,
  });
  context.setDefaultTimeout(60_000);
  return {
    context,
    close: async () => {
      await context.close();
      rmSync(profile, { recursive: true, force: true });
    },
  };
}

/** A page and the list of what went wrong in it: errors, requests to other hosts, breaches of the policy. */
export async function newPage(context) {
  const page = await context.newPage();
  const problems = [];
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => {
      console.error(`policy violated: ${event.violatedDirective} ${event.blockedURI}`);
    });
  });
  page.on('pageerror', (error) => problems.push(`page error: ${error}`));
  page.on('console', (message) => {
    if (message.type() === 'error' && !EXPECTED.test(message.location().url)) problems.push(`console: ${message.text()} (${message.location().url})`);
  });
  page.on('request', (request) => {
    const url = new URL(request.url());
    if (/^(https?|wss?):$/.test(url.protocol) && url.origin !== new URL(SERVER).origin) problems.push(`request to another host: ${url.href}`);
  });
  page.on('response', (response) => {
    const { pathname } = new URL(response.url());
    if (response.status() >= 400 && !EXPECTED.test(pathname)) problems.push(`${response.status()} from ${response.url()}`);
  });
  return { page, problems };
}

let folder;

export async function screenshot(page, name, failed) {
  if (!failed && SCREENSHOTS !== 'all') return;
  folder ??= mkdtempSync(join(tmpdir(), 'perses-screenshots-'));
  const file = join(folder, `${name.replace(/[^a-z0-9]+/gi, '-')}.png`);
  await page.screenshot({ path: file });
  console.log(`screenshot: ${file}`);
}

/** How many canvases show something: more than one colour among their pixels. */
export const drawnCanvases = (page) =>
  page.evaluate(() => [...document.querySelectorAll('canvas')].filter((canvas) => {
    if (canvas.width === 0 || canvas.height === 0) return false;
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    const pixels = new Uint32Array(data.buffer);
    return pixels.some((pixel) => pixel !== pixels[0]);
  }).length);
