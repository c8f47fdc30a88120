// Requests to our server. The packages and plugins call `fetch` with root-relative addresses and know nothing of
// sign-in, so the session lives in a wrapper around `fetch` itself.

/** The server's api_prefix (`<base href>` without its last slash), or ''. */
export const basePath = new URL(document.baseURI).pathname.replace(/\/$/, '');

/** An answer other than 2xx, with the server's own message. */
export class HttpError extends Error {
  constructor(
    readonly status: number,
    message: string
  ) {
    super(message);
    this.name = 'HttpError';
  }
}

type Listener = () => void;
const signedOutListeners = new Set<Listener>();

/** Calls back when the session is over and can't be renewed. */
export function onSignedOut(listener: Listener): () => void {
  signedOutListeners.add(listener);
  return () => void signedOutListeners.delete(listener);
}

const network = window.fetch.bind(window);
const AUTH_PATH = /^\/api\/auth\//;
const OWN_PATH = /^\/(api|proxy|plugins)\//;

let refreshing: Promise<boolean> | undefined;

/** Asks for new cookies; many requests that fail at once share one call. */
function refreshSession(): Promise<boolean> {
  refreshing ??= network(`${basePath}/api/auth/refresh`, { method: 'POST' })
    .then((response) => response.ok)
    .catch(() => false)
    .finally(() => {
      refreshing = undefined;
    });
  return refreshing;
}

/** Adds the prefix, and on a 401 renews the session once and tries again. */
export function installFetch(): void {
  window.fetch = async (input, init) => {
    if (typeof input !== 'string' || !OWN_PATH.test(input)) return network(input, init);
    const response = await network(basePath + input, init);
    if (response.status !== 401 || AUTH_PATH.test(input)) return response;
    if (await refreshSession()) return network(basePath + input, init);
    signedOutListeners.forEach((listener) => listener());
    return response;
  };
}

function messageOf(text: string): string | undefined {
  try {
    const { message } = JSON.parse(text) as { message?: unknown };
    return typeof message === 'string' ? message : undefined;
  } catch {
    return undefined;
  }
}

/** One JSON call; answers the decoded body, or undefined for an empty one. Throws `HttpError`. */
export async function send<T>(method: string, url: string, body?: unknown): Promise<T> {
  const init: RequestInit = { method };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { 'content-type': 'application/json' };
  }
  const response = await fetch(url, init);
  const text = await response.text();
  if (!response.ok) throw new HttpError(response.status, messageOf(text) ?? `${response.status} ${response.statusText}`);
  return (text ? JSON.parse(text) : undefined) as T;
}

export const getJson = <T>(url: string) => send<T>('GET', url);
