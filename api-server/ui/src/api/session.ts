import { useQuery } from '@tanstack/react-query';
import { basePath, getJson, send } from './http';
import { queryClient } from './query-client';

interface Provider {
  slug_id: string;
  name: string;
}

/** The part of GET /api/config that this app reads. */
interface ServerConfig {
  security?: {
    enable_auth?: boolean;
    readonly?: boolean;
    authentication?: {
      providers?: { enable_native?: boolean; oidc?: Provider[]; oauth?: Provider[]; kubernetes?: { enable?: boolean } };
    };
  };
}

/** The ways to sign in that the sign-in page offers. */
export interface SignInWays {
  native: boolean;
  kubernetes: boolean;
  /** Other places, each with the address (without api_prefix) that leads there. */
  providers: { name: string; path: string }[];
}

interface User {
  metadata: { name: string };
  spec?: { firstName?: string; lastName?: string };
}

export interface Session {
  authEnabled: boolean;
  readonly: boolean;
  /** Undefined while nobody is signed in, and always when sign-in is off. */
  user?: User;
}

async function loadSession(): Promise<Session> {
  const { security } = await getJson<ServerConfig>('/api/config');
  const session = { authEnabled: security?.enable_auth === true, readonly: security?.readonly === true };
  if (!session.authEnabled) return session;
  return { ...session, user: await getJson<User>('/api/v1/user/whoami') };
}

/** Who is signed in; an `HttpError` 401 means nobody. */
export const useSession = () =>
  useQuery(['session'], loadSession, { staleTime: 300_000, cacheTime: Infinity, keepPreviousData: false });

async function loadSignInWays(): Promise<SignInWays> {
  const { security } = await getJson<ServerConfig>('/api/config');
  const { enable_native, oidc = [], oauth = [], kubernetes } = security?.authentication?.providers ?? {};
  const at = (kind: string) => (provider: Provider) => ({
    name: provider.name,
    path: `/api/auth/providers/${kind}/${encodeURIComponent(provider.slug_id)}/login`,
  });
  return {
    native: enable_native === true,
    kubernetes: kubernetes?.enable === true,
    providers: [...oidc.map(at('oidc')), ...oauth.map(at('oauth'))],
  };
}

export const useSignInWays = () => useQuery(['sign-in-ways'], loadSignInWays, { staleTime: 300_000 });

export async function signIn(login: string, password: string): Promise<void> {
  await send('POST', '/api/auth/providers/native/login', { login, password });
  queryClient.clear();
}

/** Leaves the app: the server ends the session and sends the browser on, to the provider's own sign-out if there is one. */
export function signOut(): void {
  window.location.assign(`${basePath}/api/auth/logout`);
}

export function displayName({ metadata, spec }: User): string {
  return [spec?.firstName, spec?.lastName].filter(Boolean).join(' ') || metadata.name;
}
