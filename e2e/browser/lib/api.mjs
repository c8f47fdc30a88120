// The server's API, signed in as the tests' user.
import { setTimeout as pause } from 'node:timers/promises';
import { LOGIN, PASSWORD, SERVER } from './env.mjs';

let cookie = '';

export async function call(method, path, body) {
  const headers = { 'content-type': 'application/json', ...(cookie && { cookie }) };
  const response = await fetch(SERVER + path, { method, headers, body: body && JSON.stringify(body) });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
  cookie ||= response.headers.getSetCookie().map((value) => value.split(';')[0]).join('; ');
  return text ? JSON.parse(text) : undefined;
}

export const signIn = () => call('POST', '/api/auth/providers/native/login', { login: LOGIN, password: PASSWORD });

/** Asks again until the answer is something, for at most `seconds`. */
export async function until(what, ask, seconds = 60) {
  const deadline = Date.now() + seconds * 1000;
  let last;
  while (Date.now() < deadline) {
    try {
      const answer = await ask();
      if (answer) return answer;
    } catch (error) {
      last = error;
    }
    await pause(250);
  }
  throw new Error(`${what}: not within ${seconds} s`, { cause: last });
}
