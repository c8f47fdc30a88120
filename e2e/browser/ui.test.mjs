// The web UI in a real browser. One story after the other, as a person would go through it.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { call, until } from './lib/api.mjs';
import { drawnCanvases, newPage, open, screenshot } from './lib/browser.mjs';
import { LOGIN, PASSWORD, SERVER } from './lib/env.mjs';
import * as fixture from './lib/fixture.mjs';

let browser;
let page;
let problems;

const at = (path) => `${SERVER}${path}`;
const dashboardPath = `/projects/${fixture.PROJECT}/dashboards/${fixture.DASHBOARD}`;
const errors = () => page.locator('.MuiAlert-colorError');
const button = (name) => page.getByRole('button', { name, exact: true });

async function signIn() {
  await page.getByLabel('Login').fill(LOGIN);
  await page.getByLabel('Password').fill(PASSWORD);
  await button('Sign in').click();
}

async function chartsAreDrawn(count) {
  await until(`${count} drawn charts`, async () => (await drawnCanvases(page)) >= count, 120);
  assert.equal(await errors().count(), 0, `errors on the page: ${await errors().allInnerTexts()}`);
}

/** Waits for the answer to the PUT of the dashboard that the Save button sends. */
async function save() {
  const saved = page.waitForResponse((r) => r.request().method() === 'PUT' && new URL(r.url()).pathname.endsWith(fixture.path));
  await button('Save').click();
  assert.equal((await saved).status(), 200);
  await page.getByText('Dashboard saved').waitFor();
}

before(async () => {
  await fixture.create();
  browser = await open();
  ({ page, problems } = await newPage(browser.context));
});

after(async () => {
  await browser?.close();
  await fixture.remove();
});

afterEach(async (t) => {
  if (page && (!failed || failed === t.name)) await screenshot(page, t.name, failed === t.name);
});

let failed;

/** Every story also says that nothing went wrong besides. A story goes on where the last one ended. */
const story = (name, tell) =>
  test(name, async (t) => {
    if (failed) return t.skip(`after the failure of "${failed}"`);
    failed = name;
    problems.length = 0;
    await tell();
    assert.deepEqual(problems, []);
    failed = undefined;
  });

story('a stranger is asked to sign in, and a wrong password is refused', async () => {
  await page.goto(at(dashboardPath));
  await page.getByRole('heading', { name: 'Sign in to Perses' }).waitFor();
  await page.getByLabel('Login').fill(LOGIN);
  await page.getByLabel('Password').fill(`not ${PASSWORD}`);
  await button('Sign in').click();
  await page.getByText('Wrong login or password.').waitFor();
  // The browser itself reports the refusal; that one is meant.
  assert.ok(problems.length > 0 && problems.every((problem) => problem.includes('/api/auth/providers/native/login')), problems.join('\n'));
  problems.length = 0;
});

story('signing in leads to the dashboard that was asked for, with drawn charts', async () => {
  await signIn();
  await page.waitForURL((url) => url.pathname.endsWith(dashboardPath));
  await page.getByRole('heading', { name: 'Overview' }).waitFor();
  // Five panels draw on a canvas: two time series, the stat's sparkline, the gauge and the bars.
  await chartsAreDrawn(5);
  await page.getByText('What it says of').waitFor();
});

story('the project list shows projects and their dashboards', async () => {
  await page.getByRole('link', { name: 'Dashboards', exact: true }).first().click();
  const project = page.getByRole('region', { name: `Project ${fixture.PROJECT}` });
  await project.getByRole('link', { name: 'Browser tests' }).waitFor();
  await page.getByLabel('Search').fill(fixture.PROJECT);
  await screenshot(page, 'home');
  await project.getByRole('link', { name: 'Overview', exact: true }).click();
  await page.getByRole('heading', { name: 'Overview' }).waitFor();
});

story('an edited dashboard is saved without loss', async () => {
  await page.goto(at(dashboardPath));
  await button('Edit').first().click();
  await button('Add panel group').click();
  const dialog = page.getByRole('dialog');
  await dialog.getByLabel('Name').fill('Added by hand');
  await dialog.getByRole('button', { name: 'Add' }).click();
  await save();

  const { spec } = await call('GET', fixture.path);
  assert.ok(spec.layouts.some((layout) => layout.spec.display?.title === 'Added by hand'));
  const known = fixture.dashboard().spec;
  for (const [field, value] of Object.entries(fixture.UNKNOWN)) assert.deepEqual(spec[field], value, field);
  assert.deepEqual(spec.panels, known.panels);
  assert.deepEqual(spec.variables, known.variables);
  assert.equal(spec.duration, known.duration);
  const items = spec.layouts.flatMap((layout) => layout.spec.items);
  assert.deepEqual(items, known.layouts.flatMap((layout) => layout.spec.items));

  await page.reload();
  await page.getByText('Added by hand').waitFor();
  await chartsAreDrawn(5);
});

story('the JSON editor shows and changes fields that have no form', async () => {
  await button('Edit').first().click();
  await button('Edit JSON').click();
  const dialog = page.getByRole('dialog');
  const editor = dialog.locator('.cm-content');
  await editor.getByText('"Europe/Vienna"').waitFor();
  const changed = await call('GET', fixture.path);
  changed.spec.timezone = 'Asia/Tokyo';
  delete changed.spec.links;
  await editor.click();
  await page.keyboard.press('ControlOrMeta+a');
  await page.keyboard.insertText(JSON.stringify(changed));
  await dialog.getByRole('button', { name: 'Apply' }).click();
  await save();
  const { spec } = await call('GET', fixture.path);
  assert.equal(spec.timezone, 'Asia/Tokyo');
  assert.equal(spec.links, undefined);
  assert.deepEqual(spec.annotations, fixture.UNKNOWN.annotations);
});

story('a dashboard with tabs is shown, and cannot be broken by saving it', async () => {
  await page.goto(at(`/projects/${fixture.PROJECT}/dashboards/${fixture.TABBED}`));
  await page.getByText('It is shown read-only').waitFor();
  await page.getByText('First tab').waitFor();
  await page.getByText('Second tab').waitFor();
  await chartsAreDrawn(1);
  await button('Edit').first().click();
  assert.ok(await button('Save').isDisabled());
});

story('a project and a dashboard can be created and deleted', async () => {
  const name = `${fixture.PROJECT}-new`;
  await page.goto(at('/'));
  await button('New project').click();
  await page.getByRole('dialog').getByLabel('Name').fill(name);
  await button('Create').click();
  await page.getByRole('link', { name }).click();
  await button('New dashboard').click();
  await page.getByRole('dialog').getByLabel('Name').fill('First one');
  await button('Create').click();
  await page.waitForURL((url) => url.pathname.endsWith(`/projects/${name}/dashboards/first-one`));
  await page.getByRole('heading', { name: 'First one' }).waitFor();
  assert.equal((await call('GET', `/api/v1/projects/${name}/dashboards/first-one`)).spec.display.name, 'First one');
  await page.goto(at(`/projects/${name}`));
  await button('Delete first-one').click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await page.getByText('No dashboards yet').waitFor();
  await button('Delete project').click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await page.waitForURL((url) => !url.pathname.includes(name));
  await until('the project is gone', async () => !(await call('GET', '/api/v1/projects')).some((project) => project.metadata.name === name));
});

story('datasources and variables of a project open in their editors', async () => {
  await page.goto(at(`/projects/${fixture.PROJECT}/datasources`));
  await button('prometheus').click();
  await page.getByText('PrometheusDatasource').first().waitFor();
  assert.equal(await errors().count(), 0);
  await button('Cancel').click();
  await page.getByRole('tab', { name: 'Variables' }).click();
  await button('New variable').click();
  await page.getByRole('textbox', { name: /^Name/ }).fill('team');
  await page.getByRole('textbox', { name: /^Value/ }).fill('core');
  await button('Save').click();
  await page.getByText('Variable team saved').waitFor();
  await button('team').waitFor();
  const variable = await call('GET', `/api/v1/projects/${fixture.PROJECT}/variables/team`);
  assert.equal(variable.spec.spec.value, 'core');
});

story('a query can be explored', async () => {
  await page.goto(at(`/explore?project=${fixture.PROJECT}`));
  const editor = page.locator('.cm-content').first();
  await editor.click();
  await page.keyboard.insertText('process_resident_memory_bytes');
  await button('Run Query').click();
  await page.getByText('process_resident_memory_bytes{').waitFor();
  await page.getByRole('tab', { name: 'Graph' }).click();
  await chartsAreDrawn(1);
});

story('an expired access token is renewed, and the return path survives a lost session', async () => {
  await browser.context.clearCookies({ name: 'jwtPayload' });
  await page.goto(at('/projects'));
  await page.getByRole('heading', { name: 'Dashboards' }).waitFor();
  await browser.context.clearCookies();
  await page.goto(at(`/projects/${fixture.PROJECT}`));
  await page.getByRole('heading', { name: 'Sign in to Perses' }).waitFor();
  await signIn();
  await page.waitForURL((url) => url.pathname.endsWith(`/projects/${fixture.PROJECT}`));
});

story('signing out ends the session', async () => {
  await button('Account').click();
  await page.getByRole('menuitem', { name: 'Sign out' }).click();
  await page.getByRole('heading', { name: 'Sign in to Perses' }).waitFor();
  await page.goto(at('/'));
  await page.getByRole('heading', { name: 'Sign in to Perses' }).waitFor();
});
