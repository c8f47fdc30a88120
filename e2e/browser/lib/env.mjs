// What the tests run against; everything comes from the environment, so that the same files serve a local server and
// a stack on a cluster.
import { existsSync } from 'node:fs';

/** Address of the server as the browser reaches it, without a slash at the end. */
export const SERVER = (process.env.PERSES_URL ?? 'http://127.0.0.1:8080').replace(/\/$/, '');
/** Address of a Prometheus that scrapes itself, as the server reaches it. */
export const PROMETHEUS = process.env.PROMETHEUS_URL ?? 'http://127.0.0.1:9090';
export const LOGIN = process.env.PERSES_LOGIN ?? 'admin';
export const PASSWORD = process.env.PERSES_PASSWORD ?? '';
/** Folder for screenshots of failed tests; with SCREENSHOTS=all of every test. */
export const SCREENSHOTS = process.env.SCREENSHOTS ?? 'failed';

const BROWSERS = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

export function browserPath() {
  const found = BROWSERS.find((path) => path && existsSync(path));
  if (!found) throw new Error('no Chromium: install it (Debian: apt-get install chromium) or name it in CHROMIUM');
  return found;
}

if (!PASSWORD) throw new Error('PERSES_PASSWORD is empty: give the sign-in of the server under test');
